"""Each row of feedback belongs to exactly one night, what a night works on stays the same, and a late night is told."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tasks.core.clock import now
from tasks.store.answers import FeedbackIn, ensure_conversation, open_draft, record_feedback
from tasks.store.errors import StoreError
from tasks.store.identities import create_identity
from tasks.store.nights import close_night, feedback_upto, last_nights, note_snapshot, open_night, overdue
from tasks.store.schema import AnswerRow, Identity
from tasks.store.store import Store, new_id

Serve = Callable[..., AnswerRow]


def say(store: Store, identity: Identity, answer: AnswerRow, count: int = 1) -> None:
    for _ in range(count):
        record_feedback(store, identity, FeedbackIn(new_id("k"), answer.id, "thumb", thumb=1))


def test_a_night_that_was_not_closed_is_taken_up_with_the_rows_it_has(
    store: Store, anna: Identity, serve: Serve
) -> None:
    answer = serve(anna)
    say(store, anna, answer, 2)
    begun = open_night(store, "construction", "run-1")
    before = feedback_upto(store, "construction", begun.number)
    note_snapshot(store, begun.number, "s" * 64)
    say(store, anna, answer, 4)
    again = open_night(store, "construction", "run-2")
    assert (again.number, again.rows, again.snapshot, again.flow_run_id) == (begun.number, 2, "s" * 64, "run-1")
    assert feedback_upto(store, "construction", begun.number) == before


def test_posts_and_nights_at_once_lose_no_row_and_claim_none_twice(store: Store, anna: Identity, serve: Serve) -> None:
    answer = serve(anna)
    with ThreadPoolExecutor(6) as pool:
        posting = [pool.submit(say, store, anna, answer, 20) for _ in range(2)]
        claimed = 0
        while not all(future.done() for future in posting):
            nights = list(pool.map(lambda _: open_night(store, "construction", "run"), range(3)))
            assert len({(night.number, night.rows) for night in nights}) == 1
            claimed += nights[0].rows
            close_night(store, nights[0].number, "skip", "")
        for future in posting:
            future.result()
    final = open_night(store, "construction", "run")
    rows = feedback_upto(store, "construction", final.number)
    assert claimed + final.rows == 40
    assert len({row.seq for row, *_ in rows}) == len(rows) == 40


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
    night = open_night(store, "construction", "run").number
    first, second = feedback_upto(store, "construction", night)
    assert (first[0].id, first[0].night, first[1:]) == (chosen.id, night, (right, left))
    assert (second[0].text, second[2]) == ("Better.", None)


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
    for wrong in (lambda: close_night(store, 99, "hold", ""), lambda: note_snapshot(store, 99, "s")):
        with pytest.raises(StoreError, match="no night 99"):
            wrong()
    with pytest.raises(IntegrityError):
        close_night(store, nights[0].number, "fine", "")
    columns, values = "domain, started_at, flow_run_id, reason, rows", "'construction', '2026-01-01', '', '', 0"
    with pytest.raises(IntegrityError, match=r"(?i)unique"), store.write() as session:  # a second unfinished one
        session.execute(text(f"INSERT INTO nights ({columns}) VALUES ({values})"))  # noqa: S608


def after(hours: float) -> datetime:
    return now() + timedelta(hours=hours)


def test_the_first_day_is_quiet_and_the_second_is_not(store: Store) -> None:
    assert overdue(store, "construction", 26, after(1000)) is None  # nobody is in it yet
    create_identity(store, "admin", "admin")
    assert overdue(store, "construction", 26, after(25.9)) is None
    said = overdue(store, "construction", 26, after(27))
    assert said == "no night has finished in the first 27 h (the alarm is set to 26 h)"
    close_night(store, open_night(store, "law", "run").number, "promote", "better", version="2")
    assert "no night has finished" in str(overdue(store, "construction", 26, after(30)))
    assert overdue(store, "law", 26, after(20)) is None


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ("skip", "ended 30 h ago"),
        ("failed", "night 1 failed: out of memory"),
        (None, "night 1 was begun and has not ended"),
    ],
)
def test_a_skipped_night_is_a_night_a_failed_or_hanging_one_is_told(
    store: Store, outcome: str | None, told: str
) -> None:
    create_identity(store, "admin", "admin")
    night = open_night(store, "construction", "run")
    if outcome is not None:
        close_night(store, night.number, outcome, "out of memory")
    assert overdue(store, "construction", 26, after(25.9)) is None
    assert told in str(overdue(store, "construction", 26, after(30)))
