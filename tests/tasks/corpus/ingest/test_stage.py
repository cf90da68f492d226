"""A conversation is evaluated on as a whole: by its first question, and none of its answers is trained on."""

from __future__ import annotations

from tasks.core.records import Example, Receipt, Turn
from tasks.corpus.ingest.stage import HELD_OUT, held_back, item_of, items_of
from tests.examples import an_example

FIRST = an_example("How high?", "Two metres.")
SECOND = an_example("And wide?", "One.", history=(Turn(user="How high?", assistant="Two metres."),))


def receipts(*examples: Example, kept: bool = True) -> list[tuple[Example, Receipt]]:
    return [(one, Receipt(example_id=one.id, stage="ingest", kept=kept, reason="read")) for one in examples]


def test_the_items_are_what_conversations_begin_with() -> None:
    assert [item.prompt for item in items_of("domain", [FIRST, SECOND])] == ["How high?"]


def test_an_item_is_asked_under_the_system_text_and_behind_the_turns_of_its_example() -> None:
    """A row of Alpaca with a history has no example that comes before it."""
    item = item_of("domain", SECOND.model_copy(update={"system": "Be brief."}))
    assert (item.system, item.history) == ("Be brief.", SECOND.history)
    assert item.id != item_of("domain", SECOND).id


def test_all_answers_of_a_conversation_are_held_back_with_its_first() -> None:
    evaluated = {item_of("domain", FIRST).id}
    found = held_back(receipts(FIRST, SECOND), evaluated, ())
    assert [(receipt.kept, receipt.reason) for _, receipt in found] == [(False, HELD_OUT)] * 2
    assert held_back(receipts(FIRST, SECOND), (), ()) == receipts(FIRST, SECOND)


def test_what_was_dropped_before_keeps_its_own_reason_and_an_entry_that_is_asked_for_is_held_back() -> None:
    dropped = receipts(FIRST, kept=False)
    assert held_back(dropped, {item_of("domain", FIRST).id}, ()) == dropped
    [(_, receipt)] = held_back(receipts(FIRST), (), FIRST.source)
    assert receipt.reason == HELD_OUT
