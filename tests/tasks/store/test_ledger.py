"""The ledger gives back what was written, newest first."""

from __future__ import annotations

import pytest

from tasks.store.errors import BadValue
from tasks.store.ledger import EVENTS, append, entries, last
from tasks.store.store import Store


def test_lines_come_newest_first_and_by_event(store: Store) -> None:
    numbers = [append(store, "construction", event, version=str(place)) for place, event in enumerate(EVENTS)]
    append(store, "law", "promoted", version="99")
    assert numbers == sorted(numbers)
    assert [entry.event for entry in entries(store, "construction", 3)] == list(reversed(EVENTS))[:3]
    assert [entry.version for entry in entries(store, "construction", 10, event="served")] == ["2"]
    assert len(entries(store, "construction")) == len(EVENTS)


def test_the_last_of_some_events_is_found(store: Store) -> None:
    append(store, "construction", "promoted", version="1")
    append(store, "construction", "rolled_back", version="0")
    append(store, "construction", "served", version="0")
    found = [last(store, "construction", *events) for events in (("promoted", "rolled_back"), ("promoted",), ())]
    assert [(entry.event, entry.version) for entry in found if entry] == [
        ("rolled_back", "0"),
        ("promoted", "1"),
        ("served", "0"),
    ]
    assert last(store, "construction", "approved") is None
    assert last(store, "law") is None


def test_a_line_keeps_all_that_was_said(store: Store) -> None:
    detail = {"checks": [{"name": "版本", "ok": True, "difference": 0.25}], "none": None}
    number = append(store, "construction", "override", "3", "d" * 64, "anna", "it's <b>fine</b>", detail)
    entry = last(store, "construction")
    assert entry is not None
    assert (entry.seq, entry.version, entry.digest, entry.actor, entry.reason, entry.detail) == (
        number,
        "3",
        "d" * 64,
        "anna",
        "it's <b>fine</b>",
        detail,
    )
    assert entry.created_at.utcoffset() is not None


def test_an_unknown_event_is_refused(store: Store) -> None:
    with pytest.raises(BadValue, match="promoted, rolled_back"):
        append(store, "construction", "vanished")
