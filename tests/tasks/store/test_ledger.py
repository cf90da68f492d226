"""The ledger gives back what was written, newest first; a person is asked once, and answers once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.store.errors import BadValue, StoreError
from tasks.store.ledger import EVENTS, append, ask, decide, entries, last, question
from tasks.store.nights import open_night
from tasks.store.store import Store


def test_lines_come_newest_first_and_the_last_of_some_events_is_found(store: Store) -> None:
    numbers = [append(store, "construction", event, version=str(place)) for place, event in enumerate(EVENTS)]
    append(store, "law", "promoted", version="99")
    assert numbers == sorted(numbers)
    assert [entry.event for entry in entries(store, "construction", limit=3)] == list(reversed(EVENTS))[:3]
    assert len(entries(store, "construction")) == len(EVENTS)
    found = [last(store, "construction", *events) for events in (("promoted", "rolled_back"), ("promoted",), ())]
    assert [entry.event for entry in found if entry] == ["rolled_back", "promoted", EVENTS[-1]]
    assert last(store, "law", "approved") is None and last(store, "nobody") is None


def test_a_line_keeps_all_that_was_said(store: Store) -> None:
    detail = {"checks": [{"name": "版本", "ok": True, "difference": 0.25}], "none": None}
    number = append(store, "construction", "override", "3", "d" * 64, "anna", "it's <b>fine</b>", detail)
    entry = last(store, "construction")
    assert entry is not None and entry.created_at.utcoffset() is not None
    said = (entry.seq, entry.version, entry.digest, entry.actor, entry.reason, entry.detail)
    assert said == (number, "3", "d" * 64, "anna", "it's <b>fine</b>", detail)
    with pytest.raises(BadValue, match="promoted, rolled_back"):
        append(store, "construction", "vanished")


def test_asking_twice_is_one_question_decided_or_not_until_another_night_asks(store: Store) -> None:
    first = ask(store, "construction", "4", "d")
    assert (first.approved, first.night, first.decided_at) == (None, None, None)
    assert ask(store, "construction", "4", "d") == first
    decided = decide(store, "construction", "4", False, "bo", "too bold")
    assert ask(store, "construction", "4", "d") == question(store, "construction", "4") == decided
    assert (decided.approved, decided.decided_by, decided.reason) == (False, "bo", "too bold")
    night = open_night(store, "construction", "run").number
    second = ask(store, "construction", "4", "d", night)
    assert (second.id != first.id, second.approved, second.night) == (True, None, night)
    assert decide(store, "construction", "4", True, "bo", "better now").id == second.id


def test_an_answer_stands_and_nobody_answers_what_was_not_asked(store: Store) -> None:
    ask(store, "construction", "4", "d")
    refused = decide(store, "construction", "4", False, "bo", "no")
    assert decide(store, "construction", "4", False, "anna", "me too") == refused
    with pytest.raises(StoreError, match="refused by bo"):
        decide(store, "construction", "4", True, "anna", "yes")
    with pytest.raises(StoreError, match="version 5"):
        decide(store, "construction", "5", True, "bo", "")
    assert question(store, "construction", "5") is None


def test_threads_that_ask_or_answer_at_once_get_one_question_and_one_answer(store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert len({asked.id for asked in pool.map(lambda _: ask(store, "construction", "4", "d"), range(12))}) == 1

    def answer(approved: bool) -> bool:
        try:
            return decide(store, "construction", "4", approved, "x", "").approved is approved
        except StoreError:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(answer, (True, False))) == [False, True]
