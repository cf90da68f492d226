"""Keys open the door for whom they were made, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.store.answers import FeedbackIn, ensure_conversation, feedback_on, get_answer, open_draft, record_feedback
from tasks.store.errors import BadValue, StoreError
from tasks.store.identities import (
    KEY,
    authenticate,
    create_identity,
    delete_identity,
    disable_identity,
    get_identity,
    list_identities,
)
from tasks.store.ledger import append, ask, decide, entries, question
from tasks.store.memory import accept
from tasks.store.nights import feedback_upto, open_night
from tasks.store.schema import AnswerRow, Identity
from tasks.store.store import Store


def test_a_key_opens_for_its_identity_until_that_is_disabled(store: Store) -> None:
    anna, key = create_identity(store, "anna", "chat")
    bo, other = create_identity(store, "博", "admin")
    assert KEY.fullmatch(key) and len(key) == 3 + 8 + 1 + 43
    assert get_identity(store, bo.id) == bo and get_identity(store, "") is None
    assert (authenticate(store, key), authenticate(store, other)) == (anna, bo)
    assert (bo.name, bo.role, bo.disabled_at) == ("博", "admin", None)
    with store.read() as session:
        assert key[12:] not in str(session.execute(text("SELECT * FROM identities")).all())
    assert disable_identity(store, "anna") == disable_identity(store, "anna") == anna
    assert authenticate(store, key) is None and get_identity(store, anna.id) is None
    assert authenticate(store, other) == bo
    assert [(one.name, one.disabled_at is None) for one in list_identities(store)] == [("anna", False), ("博", True)]


def test_a_key_with_one_character_changed_opens_nothing(store: Store) -> None:
    _, key = create_identity(store, "anna", "chat")
    for place in range(3, len(key)):
        wrong = key[:place] + ("b" if key[place] == "a" else "a") + key[place + 1 :]
        assert authenticate(store, wrong) is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(st.characters(codec=None)), st.from_regex(KEY, fullmatch=True)))
def test_nothing_made_up_opens(store: Store, key: str) -> None:
    assert authenticate(store, key) is None


def test_a_name_is_taken_once_and_names_and_roles_that_are_none_are_refused(store: Store) -> None:
    create_identity(store, "anna", "chat")
    disable_identity(store, "anna")
    with pytest.raises(StoreError, match="anna"):
        create_identity(store, " anna ", "admin")
    for name in ("", "   ", "a\nb", "x" * 201, "a\x00"):
        with pytest.raises(BadValue):
            create_identity(store, name, "chat")
    with pytest.raises(BadValue, match="chat, review, admin"):
        create_identity(store, "bo", "root")
    with pytest.raises(StoreError, match="eve"):
        disable_identity(store, "eve")
    with pytest.raises(StoreError, match="eve"), store.write() as session:
        delete_identity(session, "eve")


def test_a_forgotten_person_leaves_nothing_but_what_was_decided(
    store: Store, anna: Identity, bo: Identity, serve: Callable[..., AnswerRow]
) -> None:
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    first = serve(anna, conversation_id=conversation, draft_id=draft, position=0)
    serve(anna, conversation_id=conversation, draft_id=draft, position=1, who="sample")
    kept = serve(bo)
    record_feedback(store, anna, FeedbackIn("1", first.id, "choice"))
    said, _ = record_feedback(store, bo, FeedbackIn("1", kept.id, "correction", text="Better."))
    accept(store, said.id, "anna")
    night = open_night(store, "construction", "run")
    append(store, "construction", "promoted", version="1", actor="anna", reason="better")
    ask(store, "construction", "1", "d")
    decide(store, "construction", "1", True, "anna", "fine")

    with store.write() as session:
        assert delete_identity(session, "anna") == {"conversations": 1, "answers": 2, "feedback": 1}
    assert get_answer(store, first.id) is None and feedback_on(store, first.id) == []
    [(row, answer, _)] = feedback_upto(store, "construction", night.number)
    assert (answer.id, row.accepted_by) == (kept.id, "forgotten")
    assert [known.name for known in list_identities(store)] == ["bo"]
    assert [entry.actor for entry in entries(store, "construction")] == ["forgotten"]
    approval = question(store, "construction", "1")
    assert approval is not None and (approval.approved, approval.decided_by) == (True, "forgotten")
    with store.read() as session:
        assert session.execute(text("SELECT count(*) FROM drafts")).scalar_one() == 0
    with pytest.raises(StoreError):
        ensure_conversation(store, None, anna, "construction")
