"""The alarm: nights that finish in time are quiet, everything else is told."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tasks.core.clock import now
from tasks.store.identities import create_identity
from tasks.store.nights import close_night, open_night
from tasks.store.overdue import overdue
from tasks.store.store import Store


def after(hours: float) -> datetime:
    return now() + timedelta(hours=hours)


def test_the_first_day_is_quiet_and_the_second_is_not(store: Store) -> None:
    assert overdue(store, "construction", 26, after(1000)) is None  # nobody is in it yet
    create_identity(store, "admin", "admin")
    assert overdue(store, "construction", 26, after(25.9)) is None
    said = overdue(store, "construction", 26, after(27))
    assert said == "no night has finished in the first 27 h (the alarm is set to 26 h)"


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


def test_a_night_of_another_domain_does_not_count(store: Store) -> None:
    create_identity(store, "admin", "admin")
    close_night(store, open_night(store, "law", "run").number, "promote", "better", version="2")
    assert "no night has finished" in str(overdue(store, "construction", 26, after(30)))
    assert overdue(store, "law", 26, after(20)) is None
