"""A teacher for tests: an OpenAI-compatible server on the loopback address that fails and delays as it is told.

`faults` says what happens to the n-th request, by number from 0: a status (try again in 5 ms), "slow",
"drop" (the connection ends without a word), "garbage" (200, but no chat completion) or None. Every answer that is
written is counted as paid, by Idempotency-Key; with `remembers` a repeated key is answered again unpaid. A request with
one of the fields that it `refuses` is a 400.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Messages = list[dict[str, str]]
Answer = dict[str, Any]
Fault = int | str | None


def said(text: str, finish: str = "stop", prompt: int = 10, completion: int = 5) -> Answer:
    """A chat completion with this text."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "teacher",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


class TeacherServer(ThreadingHTTPServer):
    """Use as a `with` block; `url` ends in /v1."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        answer: Callable[[Messages], str | Answer] = lambda messages: f"An answer to: {messages[-1]['content']}",
        faults: Callable[[int], Fault] = lambda number: None,
        delay: float = 0.0,
        remembers: bool = False,
        refuses: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.faults, self.delay, self.remembers = answer, faults, delay, remembers
        self.refuses = refuses
        self.paid: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.requests = 0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> TeacherServer:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: TeacherServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one packet a reply

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.headers.get("idempotency-key", "")
        with server.lock:
            number, server.requests = server.requests, server.requests + 1
            server.bodies.append({**body, "authorization": self.headers.get("authorization")})
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self._reply(server.faults(number), body, key)
        finally:
            with server.lock:
                server.at_once -= 1

    def _reply(self, fault: Fault, body: dict[str, Any], key: str) -> None:
        if found := self.server.refuses & body.keys():
            return self._send(400, {"error": {"message": f"{sorted(found)} cannot be used with this model"}})
        if isinstance(fault, int):
            return self._send(fault, {"error": {"message": f"no ({fault})"}})
        if fault == "drop":
            self.close_connection = True
            return None
        if fault == "garbage":
            return self._send(200, "<html>busy</html>")
        time.sleep(1.5 if fault == "slow" else self.server.delay)
        answer = self.server.answer(body["messages"])
        with self.server.lock:
            if not (self.server.remembers and self.server.paid[key]):
                self.server.paid[key] += 1
        return self._send(200, said(answer) if isinstance(answer, str) else answer)

    def _send(self, status: int, reply: Any) -> None:
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        if status >= 429:
            self.send_header("retry-after-ms", "5")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, *_: Any) -> None:
        """Nothing."""
