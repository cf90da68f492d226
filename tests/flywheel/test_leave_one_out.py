"""An answer asked for again without each of its passages, of an engine that copies what stands first."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flywheel.leave_one_out import NotAsked, leave_one_out
from tasks.core.records import make_passage
from tasks.engine.client import Engine
from tasks.store.schema import AnswerRow
from tasks.text.passages import answering_words
from tests.answers import AN_ANSWER

WORDS = answering_words("en")
PASSAGES = [
    make_passage(kind="question", question="How tall?", text="Two metres.", source="faq/1"),
    make_passage(kind="document", text="A fence is painted every tenth year or so.", source="fences.md#0-42"),
]


class Copies(BaseHTTPRequestHandler):
    """Answers with the line of the first passage, or that there is none."""

    def do_GET(self) -> None:
        self.send({"data": [{"id": "base"}, {"id": "d" * 16}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        shown, _, _ = asked.partition(f"\n\n{WORDS.rule}")
        first = shown.partition("\n[2]")[0]
        self.send({"choices": [{"message": {"content": first.replace("\n", " ")}}]})

    def send(self, body: dict[str, Any]) -> None:
        said = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Copies)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Engine(f"http://127.0.0.1:{server.server_port}/v1") as client:
        yield client
    server.shutdown()


def answer(**changes: Any) -> AnswerRow:
    shown = [{**one.model_dump(), "score": 0.5} for one in PASSAGES]
    return replace(AN_ANSWER, id="chatcmpl-1", **{"passages": shown, **changes})


def test_an_answer_depends_on_the_passage_without_which_something_else_is_said(engine: Engine) -> None:
    first, second = leave_one_out(engine, answer(), WORDS, 64, {})
    assert (first["number"], first["depends"]) == (1, True)
    assert first["says"] == "A fence is painted every tenth year or so."
    assert (second["number"], second["depends"], second["likeness"]) == (2, False, 1.0)


def test_an_answer_from_no_passages_cannot_be_asked_without_one(engine: Engine) -> None:
    with pytest.raises(NotAsked, match="no passages"):
        leave_one_out(engine, answer(passages=None), WORDS, 64, {})


def test_a_version_that_the_engine_does_not_hold_is_named(engine: Engine) -> None:
    with pytest.raises(NotAsked, match="does not hold version 3"):
        leave_one_out(engine, answer(digest="e" * 64), WORDS, 64, {})
