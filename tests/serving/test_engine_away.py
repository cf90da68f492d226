"""The engine goes, comes back, breaks off; the client goes. Every answer that was begun has a row that says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving.gateways import Gateway, Stub, make_home, running, wait_for

CHAT = "/v1/chat/completions"
QUESTION = {"model": "construction", "messages": [{"role": "user", "content": "How?"}]}


@pytest.fixture(scope="module")
def own_stub() -> Iterator[Stub]:
    engine = Stub().start()
    yield engine
    engine.kill()


@pytest.fixture(scope="module")
def own(own_stub: Stub, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    place = make_home(tmp_path_factory.mktemp("away") / "home", base_model)
    with running(place, own_stub.url, timeout_seconds=3.0) as gateway:
        wait_for(lambda: gateway.service.ready()[0])
        yield gateway


def answers(gateway: Gateway) -> list[Any]:
    from sqlalchemy import text

    with gateway.service.storage.store.read() as session:
        return list(session.execute(text("SELECT finish_reason, text FROM answers ORDER BY created_at")).all())


def leave_after(gateway: Gateway, body: dict[str, Any], pieces: int) -> None:
    """Ask, and go away after some pieces, or after half a second without any."""
    with contextlib.suppress(httpx.ReadTimeout), httpx.Client(timeout=0.5) as client:
        request = client.build_request("POST", gateway.url + CHAT, headers=gateway.headers(), json=body)
        reply = client.send(request, stream=True)
        for _ in zip(range(pieces), reply.iter_raw(), strict=False):
            pass
        reply.close()


def test_a_killed_engine_is_a_clean_503_and_it_comes_back_by_itself(own: Gateway, own_stub: Stub) -> None:
    ask = {"headers": own.headers(), "json": QUESTION}
    assert httpx.post(own.url + CHAT, **ask).status_code == 200
    before = answers(own)
    own_stub.kill()
    for _ in range(3):
        away = httpx.post(own.url + CHAT, **ask)
        assert away.status_code == 503 and int(away.headers["retry-after"]) >= 1
        assert away.json()["error"]["code"] == "engine_unavailable"
    wait_for(lambda: httpx.get(f"{own.url}/readyz").status_code == 503)
    assert "engine" in httpx.get(f"{own.url}/readyz").json()["problems"]
    assert httpx.get(f"{own.url}/healthz").status_code == 200
    assert b"flywheel_engine_up 0.0" in httpx.get(f"{own.url}/metrics").content
    assert answers(own) == before
    own_stub.start()
    wait_for(lambda: httpx.post(own.url + CHAT, **ask).status_code == 200)
    assert b"flywheel_engine_up 1.0" in httpx.get(f"{own.url}/metrics").content


def test_an_engine_that_breaks_off_is_told_and_recorded_as_an_error(own: Gateway, own_stub: Stub) -> None:
    own_stub.behave(break_after=2, between=0.1)
    try:
        whole = httpx.post(own.url + CHAT, headers=own.headers(), json=QUESTION)
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "engine_failed")
        streamed = httpx.post(own.url + CHAT, headers=own.headers(), json=QUESTION | {"stream": True})
        assert '"engine_failed"' in streamed.text and "[DONE]" not in streamed.text
        assert '"finish_reason":"stop"' not in streamed.text
    finally:
        own_stub.behave(break_after=None, between=0.0)
    assert [tuple(row) for row in answers(own)[-2:]] == [("error", "base 1")] * 2


def test_a_client_that_goes_leaves_a_cancelled_row_and_frees_the_engine(own: Gateway, own_stub: Stub) -> None:
    own_stub.behave(between=0.05, tokens=40, gone=0)
    try:
        for body in (QUESTION | {"stream": True}, QUESTION):
            known = len(answers(own))
            leave_after(own, body, pieces=3)
            row = wait_for(lambda known=known: answers(own)[known:])[0]
            assert row[0] == "cancelled" and row[1].startswith("base 1")
        wait_for(lambda: own_stub.seen()["gone"] == 2)
    finally:
        own_stub.behave(between=0.0, tokens=4)
    wait_for(lambda: own.service.traffic.in_flight() == 0)
    assert own.service.limits._streams == 0


def test_an_answer_that_takes_too_long_is_broken_off(own: Gateway, own_stub: Stub) -> None:
    own_stub.behave(between=0.2, tokens=40)
    try:
        reply = httpx.post(own.url + CHAT, headers=own.headers(), json=QUESTION, timeout=20)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "answer_timeout")
    finally:
        own_stub.behave(between=0.0, tokens=4)
