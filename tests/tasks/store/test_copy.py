"""A store goes from either database into either, whole, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from tasks.store import ledger
from tasks.store.answers import ensure_conversation, get_answer, open_draft
from tasks.store.approvals import ask, decide, get
from tasks.store.copy import copy_store
from tasks.store.errors import StoreError
from tasks.store.feedback import FeedbackIn, feedback_on, record_feedback
from tasks.store.identities import authenticate, create_identity
from tasks.store.nights import close_night, feedback_upto, last_nights, open_night
from tasks.store.schema import AnswerRow
from tasks.store.store import Store


@pytest.fixture
def key(store: Store, serve: Callable[..., AnswerRow]) -> str:
    """A row in every table; returns the key of the one who gave them."""
    anna, key = create_identity(store, "anna", "chat")
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    left = serve(anna, id="left", conversation_id=conversation, draft_id=draft, position=0, text="<b>左</b> 😀\n'")
    serve(anna, conversation_id=conversation, draft_id=draft, position=1)
    record_feedback(store, anna, FeedbackIn("k1", left.id, "choice"))
    night = open_night(store, "construction", "run")
    close_night(store, night.number, "promote", "better", "1")
    record_feedback(store, anna, FeedbackIn("k2", left.id, "correction", text='{"a": [1]}'))
    ledger.append(store, "construction", "promoted", "1", detail={"x": 0.1})
    ask(store, "construction", "1", "d", night.number)
    decide(store, "construction", "1", True, "bo", "fine")
    return key


@pytest.fixture
def target(url: str, store: Store, key: str) -> Iterator[Store]:
    """The other database, filled with a copy."""
    assert copy_store(store, url) == 1 + 1 + 1 + 2 + 1 + 2 + 1 + 1
    opened = Store.open(url)
    yield opened
    opened.close()


def test_everything_is_there_and_life_goes_on(store: Store, target: Store, key: str) -> None:
    anna = authenticate(target, key)
    assert anna is not None and get_answer(target, "left") == get_answer(store, "left")
    assert feedback_upto(target, "construction", 1) == feedback_upto(store, "construction", 1)
    assert ledger.entries(target, "construction") == ledger.entries(store, "construction")
    assert last_nights(target, "construction", 5) == last_nights(store, "construction", 5)
    assert get(target, "construction", "1") == get(store, "construction", "1")
    again, new = record_feedback(target, anna, FeedbackIn("k1", "left", "choice"))
    assert (again, new) == (feedback_on(store, "left")[0], False)
    third, new = record_feedback(target, anna, FeedbackIn("k3", "left", "thumb", thumb=-1))
    assert (third.seq, new) == (3, True)
    assert open_night(target, "construction", "run").rows == 2


def test_a_store_with_rows_is_not_copied_into(store: Store, target: Store) -> None:
    with pytest.raises(StoreError, match="identities"):
        copy_store(store, target.url.render_as_string(hide_password=False))
    assert len(feedback_on(target, "left")) == 2


def test_a_copy_is_one_moment_while_others_write(store: Store, key: str, tmp_path: Path) -> None:
    anna = authenticate(store, key)
    assert anna is not None

    written = []

    def when_the_first_table_was_read(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "FROM identities" in statement and not written:
            written.append(record_feedback(store, anna, FeedbackIn("during", "left", "thumb", thumb=1)))

    event.listen(store._engine, "after_cursor_execute", when_the_first_table_was_read)
    copy_store(store, f"sqlite:///{tmp_path}/copy.db")
    event.remove(store._engine, "after_cursor_execute", when_the_first_table_was_read)
    copied = Store.open(f"sqlite:///{tmp_path}/copy.db")
    assert (len(feedback_on(copied, "left")), len(feedback_on(store, "left"))) == (2, 3)
    copied.close()
