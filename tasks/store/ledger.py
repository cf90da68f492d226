"""The ledger: what happened to a domain's versions, by whom and why. It is the truth; an alias is a request."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from tasks.core.clock import now
from tasks.store.errors import BadValue
from tasks.store.schema import LedgerEntry
from tasks.store.store import Store

EVENTS = ("promoted", "rolled_back", "served", "serve_failed", "refused", "restored", "override", "approved")


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
    row = LedgerEntry(
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


def entries(store: Store, domain: str, limit: int = 100) -> list[LedgerEntry]:
    """The newest lines of a domain, newest first."""
    with store.read() as session:
        return list(session.scalars(_newest_first(domain).limit(limit)))


def last(store: Store, domain: str, *events: str) -> LedgerEntry | None:
    """The newest line that is one of these events, or the newest of all without any."""
    wanted = _newest_first(domain)
    with store.read() as session:
        return session.scalar((wanted.where(LedgerEntry.event.in_(events)) if events else wanted).limit(1))


def _newest_first(domain: str) -> Select[tuple[LedgerEntry]]:
    return select(LedgerEntry).where(LedgerEntry.domain == domain).order_by(LedgerEntry.seq.desc())
