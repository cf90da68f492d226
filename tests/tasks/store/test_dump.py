"""A dump goes from either database into either, whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.store.answers import AnswerRecord, ensure_conversation, get_answer, open_draft
from tasks.store.approvals import ask, decide
from tasks.store.dump import dump, load
from tasks.store.errors import BadDump, StoreNotEmpty
from tasks.store.feedback import FeedbackIn, feedback_on, record_feedback
from tasks.store.identities import Identity, authenticate, create_identity
from tasks.store.ledger import append, entries
from tasks.store.migrate import migrate
from tasks.store.nights import close_night, feedback_upto, open_night
from tasks.store.schema import HEAD
from tasks.store.store import Store
from tests.postgres import PostgresServer

Serve = Callable[..., AnswerRecord]


@pytest.fixture
def filled(store: Store, anna: Identity, serve: Serve) -> Store:
    """A store with a row in every table."""
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    left = serve(anna, conversation_id=conversation, draft_id=draft, position=0, text="<b>左</b> 😀\n'")
    serve(anna, conversation_id=conversation, draft_id=draft, position=1)
    record_feedback(store, anna, FeedbackIn("k1", left.id, "choice"))
    night = open_night(store, "construction", "run")
    close_night(store, night.number, "promote", "better", "1")
    record_feedback(store, anna, FeedbackIn("k2", left.id, "correction", text='{"a": [1]}'))
    append(store, "construction", "promoted", "1", detail={"x": 0.1})
    ask(store, "construction", "1", "d", night.number)
    decide(store, "construction", "1", True, "bo", "fine")
    return store


@pytest.fixture(params=["to sqlite", "to postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer) -> str:
    """Another database, empty."""
    if request.param == "to sqlite":
        return f"sqlite:///{tmp_path}/target/store.db"
    return postgres_server.new_database()


def test_a_dump_loaded_elsewhere_dumps_the_same(filled: Store, target: str) -> None:
    lines = list(dump(filled))
    counts = load(target, lines)
    assert counts == {
        "identities": 1,
        "conversations": 1,
        "drafts": 1,
        "answers": 2,
        "nights": 1,
        "feedback": 2,
        "ledger": 1,
        "approvals": 1,
    }
    opened = Store.open(target)
    assert list(dump(opened)) == lines
    assert feedback_upto(opened, "construction", 1) == feedback_upto(filled, "construction", 1)
    assert entries(opened, "construction") == entries(filled, "construction")
    opened.close()


def test_life_goes_on_after_a_restore(store: Store, target: str, serve: Serve) -> None:
    anna, key = create_identity(store, "anna", "chat")
    answer = serve(anna)
    first, _ = record_feedback(store, anna, FeedbackIn("k1", answer.id, "thumb", thumb=1))
    load(target, dump(store))
    opened = Store.open(target)
    assert authenticate(opened, key) == anna
    assert get_answer(opened, answer.id) == answer
    assert record_feedback(opened, anna, FeedbackIn("k1", answer.id, "thumb", thumb=1)) == (first, False)
    second, new = record_feedback(opened, anna, FeedbackIn("k2", answer.id, "thumb", thumb=-1))
    assert (new, second.seq) == (True, first.seq + 1)
    assert open_night(opened, "construction", "run").rows == 2
    opened.close()


def test_a_dump_of_an_older_schema_is_loaded_and_brought_up_to_date(filled: Store, target: str) -> None:
    """As a Flywheel of schema 0001 wrote it: its nights had one column more."""
    head, *rows, _ = [json.loads(line) for line in dump(filled)]
    for row in rows:
        row["row"] |= {"since": 0} if row["table"] == "nights" else {}
    older = [json.dumps(value).encode() + b"\n" for value in [head | {"revision": "0001"}, *rows]]
    end = {"rows": len(rows), "sha256": sha256(b"".join(older)).hexdigest()}
    assert load(target, [*older, json.dumps({"end": end}).encode()])["nights"] == 1
    opened = Store.open(target)
    assert list(dump(opened)) == list(dump(filled))
    opened.close()


def test_a_store_with_rows_is_not_loaded_into(filled: Store, target: str) -> None:
    lines = list(dump(filled))
    load(target, lines)
    with pytest.raises(StoreNotEmpty, match="identities"):
        load(target, lines)
    opened = Store.open(target)
    assert list(dump(opened)) == lines
    opened.close()


def test_a_migrated_store_without_rows_is_loaded_into(filled: Store, target: str) -> None:
    migrate(target)
    assert load(target, dump(filled))["feedback"] == 2


def test_a_dump_that_was_cut_or_changed_leaves_the_store_empty(filled: Store, target: str) -> None:
    lines = list(dump(filled))
    changed = [line.replace(b"better", b"BETTER") for line in lines]
    swapped = [lines[0], lines[2], lines[1], *lines[3:]]
    for bad in (lines[:-1], lines[:1] + lines[2:], changed, swapped, lines[:3] + [b"{\n"] + lines[3:], lines[1:], []):
        with pytest.raises(BadDump):
            load(target, bad)
    load(target, lines)


def test_what_is_no_dump_is_refused_in_words(tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/x.db"
    for bad in ([b"hello\n"], [b"[]\n"], [b'{"flywheel_store": 2}\n'], [b'{"flywheel_store":1,"revision":"9999"}\n']):
        with pytest.raises(BadDump):
            load(target, bad)


def test_a_dump_is_lines_of_json_with_times_in_utc(filled: Store) -> None:
    head, *rows, end = [json.loads(line) for line in dump(filled)]
    assert head == {"flywheel_store": 1, "revision": HEAD}
    assert end["end"]["rows"] == len(rows)
    moments = [row["row"]["created_at"] for row in rows if "created_at" in row["row"]]
    assert {datetime.fromisoformat(moment).utcoffset() for moment in moments} == {timedelta(0)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_any_bytes_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    with pytest.raises(BadDump):
        load(f"sqlite:///{tmp_path_factory.getbasetemp()}/none.db", lines)


def test_a_dump_is_one_moment_while_others_write(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    record_feedback(store, anna, FeedbackIn("before", answer.id, "thumb", thumb=1))
    lines = dump(store)
    head, first = next(lines), next(lines)
    record_feedback(store, anna, FeedbackIn("during", answer.id, "thumb", thumb=1))
    text = b"".join([head, first, *lines])
    assert b"before" in text
    assert b"during" not in text
    assert len(feedback_on(store, answer.id)) == 2
