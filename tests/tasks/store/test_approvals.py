"""A person is asked once, and answers once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.store.approvals import ask, decide, get
from tasks.store.errors import AlreadyDecided, UnknownApproval
from tasks.store.nights import open_night
from tasks.store.store import Store


def test_asking_twice_is_one_question_decided_or_not(store: Store) -> None:
    night = open_night(store, "construction", "run").number
    asked = ask(store, "construction", "4", "d", night)
    assert (asked.approved, asked.night, asked.decided_at) == (None, night, None)
    assert ask(store, "construction", "4", "d", night) == asked
    decided = decide(store, "construction", "4", True, "bo", "reads well")
    assert ask(store, "construction", "4", "d", night) == decided
    assert get(store, "construction", "4") == decided
    assert (decided.approved, decided.decided_by, decided.reason) == (True, "bo", "reads well")


def test_another_night_asks_anew_once_the_first_was_answered(store: Store) -> None:
    first = ask(store, "construction", "4", "d")
    decide(store, "construction", "4", False, "bo", "too bold")
    night = open_night(store, "construction", "run").number
    second = ask(store, "construction", "4", "d", night)
    assert second.id != first.id
    assert second.approved is None
    assert decide(store, "construction", "4", True, "bo", "better now").id == second.id


def test_an_answer_stands(store: Store) -> None:
    ask(store, "construction", "4", "d")
    refused = decide(store, "construction", "4", False, "bo", "no")
    assert decide(store, "construction", "4", False, "anna", "me too") == refused
    with pytest.raises(AlreadyDecided, match="refused by bo"):
        decide(store, "construction", "4", True, "anna", "yes")


def test_nobody_can_answer_what_was_not_asked(store: Store) -> None:
    with pytest.raises(UnknownApproval, match="version 4"):
        decide(store, "construction", "4", True, "bo", "")
    assert get(store, "construction", "4") is None


def test_threads_that_ask_at_once_ask_one_question(store: Store) -> None:
    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(lambda _: ask(store, "construction", "4", "d"), range(12)))) == 1


def test_threads_that_answer_differently_at_once_get_one_answer(store: Store) -> None:
    ask(store, "construction", "4", "d")

    def answer(approved: bool) -> bool:
        try:
            return decide(store, "construction", "4", approved, "x", "").approved is approved
        except AlreadyDecided:
            return False

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(answer, (True, False))) == [False, True]
