"""Keys open the door for whom they were made, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tasks.store.answers import ensure_conversation, get_answer, open_draft
from tasks.store.approvals import ask, decide, get
from tasks.store.errors import BadValue, StoreError
from tasks.store.feedback import FeedbackIn, feedback_on, record_feedback
from tasks.store.identities import (
    KEY,
    Identity,
    authenticate,
    create_identity,
    disable_identity,
    forget_identity,
    get_identity,
    list_identities,
)
from tasks.store.ledger import append, entries
from tasks.store.nights import feedback_upto, open_night
from tasks.store.schema import AnswerRow
from tasks.store.store import Store


def test_a_key_is_known_by_its_form_and_opens_for_its_identity(store: Store) -> None:
    anna, key = create_identity(store, "anna", "chat")
    bo, other = create_identity(store, "博", "admin")
    assert KEY.fullmatch(key)
    assert get_identity(store, bo.id) == bo and get_identity(store, "") is None
    assert len(key) == 3 + 8 + 1 + 43
    assert authenticate(store, key) == anna
    assert authenticate(store, other) == bo
    assert (bo.name, bo.role, bo.disabled) == ("博", "admin", False)
    with store.read() as session:
        assert key[12:] not in str(session.execute(text("SELECT * FROM identities")).all())


def test_a_key_with_one_character_changed_opens_nothing(store: Store) -> None:
    _, key = create_identity(store, "anna", "chat")
    for place in range(3, len(key)):
        wrong = key[:place] + ("b" if key[place] == "a" else "a") + key[place + 1 :]
        assert authenticate(store, wrong) is None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(st.characters(codec=None)), st.from_regex(KEY, fullmatch=True)))
def test_nothing_made_up_opens(store: Store, key: str) -> None:
    assert authenticate(store, key) is None


def test_a_disabled_identity_is_kept_out_at_once_and_stays_listed(store: Store) -> None:
    anna, key = create_identity(store, "anna", "chat")
    bo, other = create_identity(store, "bo", "review")
    assert disable_identity(store, "anna").disabled
    assert disable_identity(store, "anna") == anna
    assert authenticate(store, key) is None and get_identity(store, anna.id) is None
    assert authenticate(store, other) == bo
    assert [(known.name, known.disabled) for known in list_identities(store)] == [("anna", True), ("bo", False)]


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
    for verb in (disable_identity, forget_identity):
        with pytest.raises(StoreError, match="eve"):
            verb(store, "eve")


def test_a_forgotten_person_leaves_nothing_but_what_was_decided(
    store: Store, anna: Identity, bo: Identity, serve: Callable[..., AnswerRow]
) -> None:
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    first = serve(anna, conversation_id=conversation, draft_id=draft, position=0)
    serve(anna, conversation_id=conversation, draft_id=draft, position=1, who="sample")
    kept = serve(bo)
    record_feedback(store, anna, FeedbackIn("1", first.id, "choice"))
    record_feedback(store, bo, FeedbackIn("1", kept.id, "thumb", thumb=1))
    night = open_night(store, "construction", "run")
    append(store, "construction", "promoted", version="1", actor="anna", reason="better")
    ask(store, "construction", "1", "d")
    decide(store, "construction", "1", True, "anna", "fine")

    assert forget_identity(store, "anna") == {"conversations": 1, "answers": 2, "feedback": 1}
    assert get_answer(store, first.id) is None
    assert feedback_on(store, first.id) == []
    assert [row["answer_id"] for row in feedback_upto(store, "construction", night.number)] == [kept.id]
    assert [known.name for known in list_identities(store)] == ["bo"]
    assert [entry.actor for entry in entries(store, "construction", 10)] == ["forgotten"]
    approval = get(store, "construction", "1")
    assert approval is not None
    assert (approval.approved, approval.decided_by) == (True, "forgotten")
    with store.read() as session:
        assert session.execute(text("SELECT count(*) FROM drafts")).scalar_one() == 0
    with pytest.raises(StoreError):
        ensure_conversation(store, None, anna, "construction")
