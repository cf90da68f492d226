"""Each row of feedback belongs to exactly one night, and what a night works on does not change when it is run again."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tasks.store.answers import ensure_conversation, open_draft
from tasks.store.errors import StoreError
from tasks.store.feedback import FeedbackIn, record_feedback
from tasks.store.identities import Identity
from tasks.store.nights import (
    close_night,
    feedback_upto,
    last_nights,
    open_night,
    update_night,
)
from tasks.store.schema import AnswerRow
from tasks.store.store import Store, new_id

Serve = Callable[..., AnswerRow]


def say(store: Store, identity: Identity, answer: AnswerRow, count: int = 1) -> None:
    for _ in range(count):
        record_feedback(store, identity, FeedbackIn(new_id("k"), answer.id, "thumb", thumb=1))


def test_a_night_claims_what_is_there_and_leaves_what_comes_later(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    say(store, anna, answer, 3)
    first = open_night(store, "construction", "run-1")
    say(store, anna, answer, 2)
    assert (first.rows, first.outcome) == (3, None)
    assert len(feedback_upto(store, "construction", first.number)) == 3
    close_night(store, first.number, "skip", "too little")
    second = open_night(store, "construction", "run-2")
    assert second.rows == 2
    assert len(feedback_upto(store, "construction", first.number)) == 3
    assert len(feedback_upto(store, "construction", second.number)) == 5


def test_a_night_that_was_not_closed_is_taken_up_with_the_rows_it_has(
    store: Store, anna: Identity, serve: Serve
) -> None:
    answer = serve(anna)
    say(store, anna, answer, 2)
    begun = open_night(store, "construction", "run-1")
    before = feedback_upto(store, "construction", begun.number)
    update_night(store, begun.number, snapshot="s" * 64)
    say(store, anna, answer, 4)
    again = open_night(store, "construction", "run-2")
    assert (again.number, again.rows, again.snapshot, again.flow_run_id) == (begun.number, 2, "s" * 64, "run-1")
    assert feedback_upto(store, "construction", begun.number) == before


def test_domains_have_their_own_nights(store: Store, anna: Identity, serve: Serve) -> None:
    say(store, anna, serve(anna), 1)
    say(store, anna, serve(anna, domain="law"), 2)
    construction, law = open_night(store, "construction", "a"), open_night(store, "law", "b")
    assert (construction.rows, law.rows) == (1, 2)
    assert len(feedback_upto(store, "law", law.number)) == 2
    assert [night.number for night in last_nights(store, "law", 5)] == [law.number]


def test_threads_that_open_at_once_get_the_same_night(store: Store, anna: Identity, serve: Serve) -> None:
    say(store, anna, serve(anna), 5)
    with ThreadPoolExecutor(6) as pool:
        nights = list(pool.map(lambda n: open_night(store, "construction", f"run-{n}"), range(6)))
    assert {(night.number, night.rows) for night in nights} == {(nights[0].number, 5)}


def test_posts_and_nights_at_once_lose_no_row_and_claim_none_twice(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    with ThreadPoolExecutor(3) as pool:
        posting = [pool.submit(say, store, anna, answer, 20) for _ in range(2)]
        claimed = 0
        while not all(future.done() for future in posting):
            night = open_night(store, "construction", "run")
            claimed += night.rows
            close_night(store, night.number, "skip", "")
        for future in posting:
            future.result()
    final = open_night(store, "construction", "run")
    rows = feedback_upto(store, "construction", final.number)
    assert claimed + final.rows == 40
    assert len({row["seq"] for row in rows}) == len(rows) == 40


STEPS = st.lists(st.sampled_from(["post", "open", "close", "open again"]), max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_after_any_history_each_row_is_in_the_first_night_opened_after_it(
    store: Store, anna: Identity, serve: Serve, steps: list[str]
) -> None:
    domain = new_id("domain")
    answer = serve(anna, domain=domain)
    waiting, unfinished, claims = 0, 0, {}
    for step in steps:
        if step == "post":
            say(store, anna, answer)
            waiting += 1
        elif step == "close" and unfinished:
            close_night(store, unfinished, "hold", "")
            unfinished = 0
        elif step.startswith("open"):
            number = open_night(store, domain, "run").number
            assert number == unfinished or unfinished == 0
            if number not in claims:
                claims[number], waiting, unfinished = waiting, 0, number
    total = 0
    for number, rows in claims.items():
        total += rows
        assert len(feedback_upto(store, domain, number)) == total


def test_a_row_comes_with_its_answer_and_the_other_draft(store: Store, anna: Identity, serve: Serve) -> None:
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "challenger")
    place = {"conversation_id": conversation, "draft_id": draft}
    left = serve(anna, **place, position=0, text="Left.", version="3")
    right = serve(anna, **place, position=1, text="右", version="4", who="challenger", digest="e" * 64)
    chosen, _ = record_feedback(store, anna, FeedbackIn("k1", right.id, "choice"))
    record_feedback(store, anna, FeedbackIn("k2", serve(anna).id, "correction", text="Better."))
    night = open_night(store, "construction", "run")
    first, second = feedback_upto(store, "construction", night.number)
    assert first == {
        "seq": chosen.seq,
        "id": chosen.id,
        "kind": "choice",
        "thumb": None,
        "rating": None,
        "text": None,
        "created_at": chosen.created_at.isoformat(),
        "night": night.number,
        "identity_id": anna.id,
        "answer_id": right.id,
        "conversation_id": conversation,
        "messages": right.messages,
        "answer": "右",
        "version": "4",
        "digest": "e" * 64,
        "prompt_sha256": "p" * 64,
        "finish_reason": "stop",
        "who": "challenger",
        "draft_id": draft,
        "position": 1,
        "how": "challenger",
        "others": [
            {
                "answer_id": left.id,
                "text": "Left.",
                "version": "3",
                "digest": "d" * 64,
                "who": "champion",
                "position": 0,
                "finish_reason": "stop",
            }
        ],
    }
    assert (second["text"], second["others"], second["how"]) == ("Better.", [], None)
    json.dumps([first, second], allow_nan=False)


def test_a_night_is_closed_once_and_keeps_how_it_ended(store: Store) -> None:
    for outcome in ("promote", "hold", "skip"):
        night = open_night(store, "construction", "run")
        closed = close_night(store, night.number, outcome, "because", version="7" if outcome == "promote" else None)
        assert close_night(store, night.number, outcome, "second") == closed
        with pytest.raises(StoreError, match=outcome):
            close_night(store, night.number, "reject", "")
    open_night(store, "construction", "run")
    nights = last_nights(store, "construction", 4)
    assert [night.outcome for night in nights] == [None, "skip", "hold", "promote"]
    assert (nights[-1].version, nights[-1].reason) == ("7", "because") and nights[-1].closed_at is not None
    with pytest.raises(StoreError, match="no night 99"):
        close_night(store, 99, "hold", "")
    with pytest.raises(StoreError, match="no night 99"):
        update_night(store, 99, "s")
    with pytest.raises(IntegrityError):
        close_night(store, nights[0].number, "fine", "")


def test_the_database_itself_refuses_a_second_unfinished_night(store: Store) -> None:
    open_night(store, "construction", "run")
    columns, values = "domain, started_at, flow_run_id, reason, rows", "'construction', '2026-01-01', '', '', 0"
    with pytest.raises(IntegrityError, match=r"(?i)unique"), store.write() as session:
        session.execute(text(f"INSERT INTO nights ({columns}) VALUES ({values})"))  # noqa: S608
