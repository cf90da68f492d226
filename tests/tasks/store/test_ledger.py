"""The ledger gives back what was written, newest first."""

from __future__ import annotations

import pytest

from tasks.store.errors import BadValue
from tasks.store.ledger import EVENTS, append, entries, last
from tasks.store.store import Store


def test_lines_come_newest_first_and_the_last_of_some_events_is_found(store: Store) -> None:
    numbers = [append(store, "construction", event, version=str(place)) for place, event in enumerate(EVENTS)]
    append(store, "law", "promoted", version="99")
    assert numbers == sorted(numbers)
    assert [entry.event for entry in entries(store, "construction", 3)] == list(reversed(EVENTS))[:3]
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
