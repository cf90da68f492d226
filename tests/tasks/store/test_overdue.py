"""The alarm: nights that finish in time are quiet, everything else is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.nights import close_night, open_night
from tasks.store.overdue import overdue
from tasks.store.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.delenv("FLYWHEEL_DATABASE_URL", raising=False)
    migrate(None, home=tmp_path)
    store = Store.open(home=tmp_path)
    yield store
    store.close()


def after(hours: float) -> datetime:
    return datetime.now(UTC) + timedelta(hours=hours)


def test_a_store_without_anybody_in_it_is_quiet(store: Store) -> None:
    assert overdue(store, "construction", 26, after(1000)) is None


def test_the_first_day_is_quiet_and_the_second_is_not(store: Store) -> None:
    create_identity(store, "admin", "admin")
    assert overdue(store, "construction", 26, after(25.9)) is None
    said = overdue(store, "construction", 26, after(27))
    assert said == "no night has finished in the first 27 h (the alarm is set to 26 h)"


def test_a_skipped_night_is_a_night(store: Store) -> None:
    create_identity(store, "admin", "admin")
    close_night(store, open_night(store, "construction", "run").number, "skip", "too little was said")
    assert overdue(store, "construction", 26, after(25.9)) is None
    assert "ended 30 h ago" in str(overdue(store, "construction", 26, after(30)))


def test_a_failed_night_is_none_and_its_reason_is_told(store: Store) -> None:
    create_identity(store, "admin", "admin")
    close_night(store, open_night(store, "construction", "run").number, "failed", "sft ran out of memory")
    assert "night 1 failed: sft ran out of memory" in str(overdue(store, "construction", 26, after(30)))


def test_a_night_of_another_domain_does_not_count(store: Store) -> None:
    create_identity(store, "admin", "admin")
    close_night(store, open_night(store, "law", "run").number, "promote", "better", version="2")
    assert overdue(store, "construction", 26, after(30)) is not None
    assert overdue(store, "law", 26, after(20)) is None


def test_a_night_that_hangs_is_told(store: Store) -> None:
    create_identity(store, "admin", "admin")
    open_night(store, "construction", "run")
    assert "night 1 was begun and has not ended" in str(overdue(store, "construction", 26, after(30)))
