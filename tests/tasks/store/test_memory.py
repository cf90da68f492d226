"""Which corrections count at once and for whom, and that nothing which was taken back counts anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.store.answers import FeedbackIn, record_feedback
from tasks.store.errors import BadValue, UnknownFeedback
from tasks.store.identities import create_identity
from tasks.store.memory import MOST, Correction, accept, memory_of, withdraw
from tasks.store.nights import close_night, feedback_upto, open_night
from tasks.store.schema import AnswerRow, FeedbackRow, Identity
from tasks.store.store import Store, new_id

Serve = Callable[..., AnswerRow]
Correct = Callable[..., FeedbackRow]
QUESTION = "What is AB 04?"


def said(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


@pytest.fixture
def correct(store: Store, serve: Serve) -> Correct:
    """Somebody's correction of an answer to QUESTION, or of one with other fields."""

    def give(identity: Identity, text: str, **answer: Any) -> FeedbackRow:
        row = serve(identity, **answer)
        return record_feedback(store, identity, FeedbackIn(new_id("k"), row.id, "correction", text=text))[0]

    return give


def texts(store: Store, identity: Identity | None) -> list[str]:
    found = memory_of(store, "construction", identity.id if identity is not None else None)
    return [one.text for one in found.corrections]


def test_a_correction_counts_for_who_gave_it_and_once_accepted_for_everybody(
    store: Store, anna: Identity, bo: Identity, correct: Correct
) -> None:
    row = correct(anna, "A standard contract.")
    own = Correction(row.id, QUESTION, "A standard contract.", own=True)
    assert memory_of(store, "construction", anna.id).corrections == [own]
    assert texts(store, bo) == texts(store, None) == []
    first = accept(store, row.id, "rita")
    again = accept(store, row.id, "adam")
    assert (again.accepted_by, again.accepted_at) == ("rita", first.accepted_at)
    assert texts(store, bo) == texts(store, None) == ["A standard contract."]
    assert not memory_of(store, "construction", bo.id).corrections[0].own
    assert memory_of(store, "traffic_law", anna.id).corrections == []


def test_of_several_corrections_of_one_question_the_newest_counts_whoever_gave_it(
    store: Store, anna: Identity, bo: Identity, correct: Correct
) -> None:
    correct(anna, "Mine.")
    theirs = correct(bo, "Theirs.", messages=said(("user", "  what is  AB 04?")))
    assert texts(store, anna) == ["Mine."]
    accept(store, theirs.id, "rita")
    assert texts(store, anna) == ["Theirs."]
    correct(anna, "Mine again.")
    assert (texts(store, anna), texts(store, None)) == (["Mine again."], ["Theirs."])


@pytest.mark.parametrize(
    "messages, counts",
    [
        (said(("user", "How?")), True),
        (said(("system", "Be brief."), ("user", "How?")), True),
        (said(("user", "A fence?"), ("assistant", "Yes."), ("user", "How high?")), False),
    ],
)
def test_a_question_after_earlier_turns_means_nothing_by_itself(
    store: Store, anna: Identity, correct: Correct, messages: list[dict[str, Any]], counts: bool
) -> None:
    correct(anna, "Thus.", messages=messages)
    assert texts(store, anna) == ["Thus."] * counts


def test_only_the_newest_corrections_count(store: Store, anna: Identity, correct: Correct) -> None:
    for number in range(MOST + 2):
        correct(anna, str(number), messages=said(("user", f"Question {number}?")))
    assert texts(store, anna) == [str(number) for number in range(MOST + 1, 1, -1)]


def test_what_was_taken_back_counts_nowhere_and_reaches_no_night(
    store: Store, anna: Identity, correct: Correct
) -> None:
    row, kept = correct(anna, "Wrong."), correct(anna, "Right.", messages=said(("user", "Else?")))
    accept(store, row.id, "rita")
    first = withdraw(store, row.id, anna)
    assert withdraw(store, row.id, anna).withdrawn_at == first.withdrawn_at is not None
    assert texts(store, anna) == ["Right."]
    night = open_night(store, "construction", "run")
    assert night.rows == 1
    assert [one.id for one, *_ in feedback_upto(store, "construction", night.number)] == [kept.id]
    assert memory_of(store, "construction", anna.id).withdrawn == frozenset(), "no night has put it into an index"
    with pytest.raises(BadValue, match="not taken back"):
        accept(store, row.id, "rita")


def test_what_is_taken_back_after_a_night_is_named_and_left_out_of_the_next(
    store: Store, anna: Identity, correct: Correct
) -> None:
    row = correct(anna, "Wrong.")
    night = open_night(store, "construction", "run")
    close_night(store, night.number, "promote", "better", "1")
    withdraw(store, row.id, anna)
    assert memory_of(store, "construction", None).withdrawn == {row.id}
    later = open_night(store, "construction", "run")
    assert feedback_upto(store, "construction", later.number) == []


@pytest.mark.parametrize("role, may", [("chat", False), ("review", True), ("admin", True)])
def test_others_take_back_only_as_review_or_admin(
    store: Store, anna: Identity, correct: Correct, role: str, may: bool
) -> None:
    other, _ = create_identity(store, "other", role)
    row = correct(anna, "Mine.")
    if may:
        assert withdraw(store, row.id, other).withdrawn_at is not None
    else:
        with pytest.raises(UnknownFeedback):
            withdraw(store, row.id, other)
    assert texts(store, anna) == ([] if may else ["Mine."])


def test_only_a_correction_can_be_accepted_and_any_kind_taken_back(store: Store, anna: Identity, serve: Serve) -> None:
    thumb, _ = record_feedback(store, anna, FeedbackIn("k", serve(anna).id, "thumb", thumb=1))
    with pytest.raises(BadValue, match="only a correction"):
        accept(store, thumb.id, "rita")
    assert withdraw(store, thumb.id, anna).withdrawn_at is not None
    for change in (lambda: accept(store, "fb_none", "rita"), lambda: withdraw(store, "fb_none", anna)):
        with pytest.raises(UnknownFeedback):
            change()
