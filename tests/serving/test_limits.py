"""How much one may ask, and all together."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.limits import MAX_BUCKETS, Buckets
from tests.serving.gateways import running, wait_for

CHAT = "/v1/chat/completions"
QUESTION = {"model": "construction", "messages": [{"role": "user", "content": "How?"}]}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_minutes_worth_may_come_at_once_and_refills_evenly() -> None:
    clock = Clock()
    buckets = Buckets(6, clock)
    assert [buckets.take("ann") for _ in range(6)] == [0.0] * 6
    assert buckets.take("ann") == pytest.approx(10.0)  # 6 a minute is one in 10 s
    assert buckets.take("bob") == 0.0
    clock.now += 10.0
    assert buckets.take("ann") == 0.0
    assert buckets.take("ann") == pytest.approx(10.0)


def test_full_buckets_are_forgotten() -> None:
    clock = Clock()
    buckets = Buckets(60, clock)
    for number in range(MAX_BUCKETS):
        buckets.take(str(number))
    clock.now += 60.0
    buckets.take("one more")
    assert len(buckets._left) == 1


def test_too_many_requests_feedback_posts_and_streams_are_429_with_retry_after(
    stub: Any, plain: Any, home: Path
) -> None:
    limits = {"requests_per_minute": 4, "feedback_per_minute": 2, "max_concurrent": 1}
    with running(home, stub.url, **limits) as gateway, httpx.Client(base_url=gateway.url) as client:
        wait_for(lambda: gateway.service.ready()[0])
        stub.behave(first=1.0)
        ann, bob = gateway.headers("ann"), gateway.headers("bob")
        slow = threading.Thread(target=lambda: httpx.post(gateway.url + CHAT, headers=bob, json=QUESTION))
        slow.start()
        wait_for(lambda: gateway.service.traffic.in_flight())
        busy = client.post(CHAT, headers=ann, json=QUESTION)
        assert (busy.status_code, busy.json()["error"]["code"]) == (429, "too_many_streams")
        slow.join()
        stub.behave(first=0.0)
        # One of the four was the refused one.
        assert [client.post(CHAT, headers=ann, json=QUESTION).status_code for _ in range(4)] == [200, 200, 200, 429]
        limited = client.post(CHAT, headers=ann, json=QUESTION)
        assert limited.json()["error"]["type"] == "rate_limit_error"
        assert 1 <= int(limited.headers["retry-after"]) <= 15
        body = {"answer_id": "x", "kind": "thumb", "thumb": 1, "idempotency_key": "k"}
        assert [client.post("/v1/feedback", headers=ann, json=body).status_code for _ in range(3)] == [404, 404, 429]
        assert client.get("/healthz").status_code == 200
