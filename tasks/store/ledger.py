"""What was decided about a domain's versions: the ledger, and the questions that a person answers.

The ledger says what happened, by whom and why; it is the truth, an alias is a request. A question whether a version may
be promoted is kept here, not in the scheduler.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.core.clock import now
from tasks.store.errors import BadValue, StoreError
from tasks.store.schema import Approval, LedgerEntry
from tasks.store.store import Store

EVENTS = (
    *("promoted", "rolled_back", "served", "serve_failed", "refused", "restored", "override", "approved"),
    *("forgotten", "reserve_opened"),
)
WAITS = "version {0} waits for a person: `flywheel approve {0}`, or the deployment approve on Prefect's page"


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
    row = LedgerEntry(domain, event, version, digest, actor, reason, detail, created_at=now())
    with store.write() as session:
        session.add(row)
    return row.seq


def entries(store: Store, domain: str, *events: str, limit: int = 100) -> list[LedgerEntry]:
    """The newest lines of a domain, newest first: those that are one of these events, or all without any."""
    wanted = select(LedgerEntry).where(LedgerEntry.domain == domain).order_by(LedgerEntry.seq.desc()).limit(limit)
    with store.read() as session:
        return list(session.scalars(wanted.where(LedgerEntry.event.in_(events)) if events else wanted))


def last(store: Store, domain: str, *events: str) -> LedgerEntry | None:
    """The newest of `entries`."""
    return next(iter(entries(store, domain, *events, limit=1)), None)


def ask(store: Store, domain: str, version: str, digest: str, night: int | None = None) -> Approval:
    """The open question about this version, else the one that this night asked before, decided or not, else a new one.

    So a night that is taken up again never asks a person twice.
    """

    def find_or_add(session: Session) -> Approval:
        newest = _newest(session, domain, version)
        if newest and (newest.decided_at is None or (newest.night, newest.digest) == (night, digest)):
            return newest
        asked = Approval(domain=domain, version=version, digest=digest, night=night, asked_at=now())
        session.add(asked)
        return asked

    return store.write_or_look_again(find_or_add)


def decide(store: Store, domain: str, version: str, approved: bool, by: str, reason: str) -> Approval:
    """Answer the newest question about a version. The same answer again is no change.

    Raises:
        StoreError: nobody asked, or it was answered the other way.
    """
    with store.write() as session:
        row = _newest(session, domain, version, lock=True)
        if row is None:
            raise StoreError(f"no approval of version {version} of {domain} was asked for")
        if row.approved is not None and row.approved != approved:
            word = "approved" if row.approved else "refused"
            raise StoreError(f"version {version} of {domain} was {word} by {row.decided_by or 'nobody named'}")
        if row.approved is None:
            row.approved, row.decided_by, row.reason, row.decided_at = approved, by, reason, now()
        return row


def refusal(asked: Approval, hours: float = float("inf")) -> str:
    """Why its version may not be promoted: a person said no, or nobody answered within `hours`; "" if neither."""
    if asked.approved is False:
        return f"version {asked.version} was refused by {asked.decided_by}: {asked.reason}"
    expired = asked.approved is None and (now() - asked.asked_at).total_seconds() > hours * 3600
    return (
        f"the question about version {asked.version} is older than {hours:g} hours and has expired" if expired else ""
    )


def question(store: Store, domain: str, version: str | None = None) -> Approval | None:
    """The newest question about a version, or about any, with its answer if there is one."""
    with store.read() as session:
        return _newest(session, domain, version)


def _newest(session: Session, domain: str, version: str | None, lock: bool = False) -> Approval | None:
    wanted = select(Approval).where(Approval.domain == domain, Approval.version == (version or Approval.version))
    newest = wanted.order_by(Approval.id.desc()).limit(1)
    return session.scalar(newest.with_for_update() if lock else newest)
