"""The ledger: what happened to a domain's versions, by whom and why. It is the truth; an alias is a request."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tasks.store.errors import BadValue
from tasks.store.schema import LedgerTable
from tasks.store.store import Store, now

EVENTS = (
    "promoted",
    "rolled_back",
    "served",
    "serve_failed",
    "refused",
    "restored",
    "override",
    "approved",
    "night",
)


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    seq: int
    domain: str
    event: str
    version: str | None
    digest: str | None
    actor: str
    reason: str
    detail: dict[str, Any] | None
    created_at: datetime


def _entry(row: LedgerTable) -> Entry:
    return Entry(**{field.name: getattr(row, field.name) for field in fields(Entry)})


def append(
    store: Store,
    domain: str,
    event: str,
    version: str | None = None,
    digest: str | None = None,
    actor: str = "",
    reason: str = "",
    detail: dict[str, Any] | None = None,
) -> int:
    """Add a line; returns its number.

    Raises:
        BadValue: an event that is none of EVENTS.
    """
    if event not in EVENTS:
        raise BadValue(f"the event {event!r} is none of {', '.join(EVENTS)}")
    row = LedgerTable(
        domain=domain,
        event=event,
        version=version,
        digest=digest,
        actor=actor,
        reason=reason,
        detail=detail,
        created_at=now(),
    )
    with store.write() as session:
        session.add(row)
    return row.seq


def entries(store: Store, domain: str, limit: int = 100, event: str | None = None) -> list[Entry]:
    """The newest lines of a domain, newest first; of one event only, where given."""
    with store.read() as session:
        wanted = select(LedgerTable).where(LedgerTable.domain == domain)
        if event is not None:
            wanted = wanted.where(LedgerTable.event == event)
        return [_entry(row) for row in session.scalars(wanted.order_by(LedgerTable.seq.desc()).limit(limit))]


def last(store: Store, domain: str, *events: str) -> Entry | None:
    """The newest line that is one of these events, or the newest of all without any."""
    with store.read() as session:
        wanted = select(LedgerTable).where(LedgerTable.domain == domain)
        if events:
            wanted = wanted.where(LedgerTable.event.in_(events))
        row = session.scalar(wanted.order_by(LedgerTable.seq.desc()).limit(1))
        return _entry(row) if row is not None else None
