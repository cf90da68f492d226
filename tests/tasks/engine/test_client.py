"""What the client makes of replies, good and bad: against a server that says what the test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tasks.core.processes import free_port
from tasks.engine.client import Engine, EngineError, decoding

Replies = dict[str, tuple[int, Any]]


class Stub(BaseHTTPRequestHandler):
    """Answers each route with what `replies` holds, and keeps what it was sent."""

    replies: Replies
    sent: list[tuple[str, Any, str | None]]

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.sent.append((self.path, body, self.headers.get("authorization")))
        status, reply = self.replies.get(self.path, (404, {"detail": "Not Found"}))
        content = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def stub() -> Iterator[tuple[str, type[Stub]]]:
    kind = type("OneStub", (Stub,), {"replies": {}, "sent": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kind
    server.shutdown()
    server.server_close()


def test_the_address_may_end_in_v1_and_the_key_is_sent(stub: tuple[str, type[Stub]]) -> None:
    url, kind = stub
    kind.replies["/v1/models"] = (200, {"data": [{"id": "base"}, {"id": "0123456789abcdef"}]})
    with Engine(f"{url}/v1/", key="secret") as engine:
        assert engine.models() == ["base", "0123456789abcdef"]
    assert kind.sent == [("/v1/models", None, "Bearer secret")]


def test_a_server_without_a_health_route_is_ready_when_it_names_its_models(stub: tuple[str, type[Stub]]) -> None:
    url, kind = stub
    nobody = Engine(f"http://127.0.0.1:{free_port()}")
    assert not nobody.ready() and not Engine(url).ready()
    with pytest.raises(EngineError, match="does not answer"):
        nobody.models()
    kind.replies["/v1/models"] = (200, {"data": []})
    assert Engine(url).ready()
    kind.replies["/health"] = (503, {})
    assert not Engine(url).ready()


def test_the_loss_is_the_mean_over_the_answer_alone(stub: tuple[str, type[Stub]]) -> None:
    url, kind = stub
    listed = [None, *({str(10 + at): {"logprob": -value}} for at, value in ((1, 9.0), (2, 1.0), (3, 2.0)))]
    kind.replies["/v1/completions"] = (200, {"choices": [{"text": "", "prompt_logprobs": listed}]})
    # Two prompt tokens (10, 11) and two answer tokens (12, 13) with 1 and 2 nats.
    assert Engine(url).score("base", [10, 11], [12, 13]) == pytest.approx(1.5)
    assert kind.sent[0][1]["prompt"] == [10, 11, 12, 13]
    kind.replies["/v1/completions"] = (200, {"choices": [{"text": "yes"}]})
    with pytest.raises(EngineError, match="likelihoods"):  # an error and not a zero
        Engine(url).score("base", [1], [2])


def test_the_answer_is_tokenised_with_the_engines_own_end_of_turn(stub: tuple[str, type[Stub]]) -> None:
    url, kind = stub
    assert Engine(url).answer_nll("base", "Q", "A") is None, "only vLLM can say"
    assert Engine(url).prompt_ids("base", [{"role": "user", "content": "x"}]) is None
    kind.sent.clear()
    kind.replies["/tokenizer_info"] = (200, {"eos_token": {"content": "<end>"}})
    kind.replies["/tokenize"] = (200, {"tokens": [10]})
    listed = [None, {"10": {"logprob": -0.5}}]
    kind.replies["/v1/completions"] = (200, {"choices": [{"text": "", "prompt_logprobs": listed}]})
    assert Engine(url).answer_nll("base", "Q", "A") == pytest.approx(0.5)
    assert [body["prompt"] for path, body, _ in kind.sent if path == "/tokenize"] == ["Q", "A<end>"]


def test_an_adapter_that_is_loaded_already_is_no_error_and_one_that_is_refused_is(
    stub: tuple[str, type[Stub]], tmp_path: Path
) -> None:
    url, kind = stub
    with pytest.raises(EngineError, match="loads no adapters"):
        Engine(url).load_adapter("x", tmp_path)
    kind.replies["/v1/models"] = (200, {"data": [{"id": "base"}, {"id": "x"}]})
    kind.replies["/v1/load_lora_adapter"] = (400, {"error": {"message": "already loaded"}})
    Engine(url).load_adapter("x", tmp_path)
    with pytest.raises(EngineError, match="refused the adapter"):
        Engine(url).load_adapter("y", tmp_path)


@pytest.mark.parametrize(
    "reply",
    [
        {"error": {"message": "rank 99 is too high"}},
        {"detail": "rank 99 is too high"},
        {"message": "rank 99 is too high"},
        ["rank 99 is too high"],
        b"rank 99 is too high",
    ],
)
def test_a_refusal_is_told_in_the_engines_own_words(stub: tuple[str, type[Stub]], reply: Any) -> None:
    url, kind = stub
    kind.replies["/v1/chat/completions"] = (400, reply)
    with pytest.raises(EngineError, match=r"400, .*rank 99 is too high"):
        Engine(url).chat("base", [], 1)


@pytest.mark.parametrize("reply", [b"<html>", b"[]", b'{"choices": []}', b'{"choices": null}', b'{"choices": ["x"]}'])
def test_an_answer_that_is_none_is_an_error(stub: tuple[str, type[Stub]], reply: bytes) -> None:
    url, kind = stub
    kind.replies["/v1/chat/completions"] = (200, reply)
    with pytest.raises(EngineError):
        Engine(url).chat("base", [], 1)


def test_each_kind_of_engine_is_asked_for_the_penalty_in_its_own_words() -> None:
    assert decoding("vllm", 1.1) == decoding("url", 1.1) == {"repetition_penalty": 1.1}
    assert decoding("transformers", 1.1) == {"frequency_penalty": 0.1}
    assert decoding("url", 1.0) == {}, "an engine that knows no such field is not asked"
