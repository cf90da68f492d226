"""A person is asked once, and answers once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.store.approvals import ask, decide, get
from tasks.store.errors import StoreError
from tasks.store.nights import open_night
from tasks.store.store import Store


def test_asking_twice_is_one_question_decided_or_not_until_another_night_asks(store: Store) -> None:
    first = ask(store, "construction", "4", "d")
    assert (first.approved, first.night, first.decided_at) == (None, None, None)
    assert ask(store, "construction", "4", "d") == first
    decided = decide(store, "construction", "4", False, "bo", "too bold")
    assert ask(store, "construction", "4", "d") == get(store, "construction", "4") == decided
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
    assert get(store, "construction", "5") is None


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
