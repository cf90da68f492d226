"""Approvals: the question whether a version may be promoted, and a person's answer. Kept here, not in the scheduler."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tasks.store.errors import AlreadyDecided, StoreUnavailable, UnknownApproval
from tasks.store.schema import ApprovalTable
from tasks.store.store import Store, now


@dataclass(frozen=True)
class Approval:
    """A question and its answer; `approved` is None while it is open."""

    id: int
    domain: str
    version: str
    digest: str
    night: int | None
    asked_at: datetime
    decided_at: datetime | None
    approved: bool | None
    decided_by: str
    reason: str


def _approval(row: ApprovalTable) -> Approval:
    return Approval(**{field.name: getattr(row, field.name) for field in fields(Approval)})


def ask(store: Store, domain: str, version: str, digest: str, night: int | None = None) -> Approval:
    """The open question about this version, else the one that this night asked before, decided or not, else a new one.

    So a night that is taken up again never asks a person twice.
    """
    for _ in range(3):
        try:
            with store.write() as session:
                newest = _newest(session, domain, version)
                if newest is not None and (
                    newest.decided_at is None or (newest.night, newest.digest) == (night, digest)
                ):
                    return _approval(newest)
                row = ApprovalTable(
                    domain=domain,
                    version=version,
                    digest=digest,
                    night=night,
                    asked_at=now(),
                    decided_by="",
                    reason="",
                )
                session.add(row)
                session.flush()
                return _approval(row)
        except IntegrityError:
            continue  # asked by another at the same time: take that one
    raise StoreUnavailable("the approval could not be asked for; try again")


def _asked(row: ApprovalTable) -> tuple[int | None, str]:
    return row.night, row.digest


def decide(store: Store, domain: str, version: str, approved: bool, by: str, reason: str) -> Approval:
    """Answer the newest question about a version. The same answer again is no change.

    Raises:
        UnknownApproval: nobody asked.
        AlreadyDecided: it was answered the other way.
    """
    with store.write() as session:
        row = _newest(session, domain, version, lock=True)
        if row is None:
            raise UnknownApproval(f"no approval of version {version} of {domain} was asked for")
        if row.approved is not None and row.approved != approved:
            word = "approved" if row.approved else "refused"
            raise AlreadyDecided(f"version {version} of {domain} was {word} by {row.decided_by or 'nobody named'}")
        if row.approved is None:
            row.approved, row.decided_by, row.reason, row.decided_at = approved, by, reason, now()
        return _approval(row)


def get(store: Store, domain: str, version: str) -> Approval | None:
    """The newest question about a version, with its answer if there is one."""
    with store.read() as session:
        row = _newest(session, domain, version)
        return _approval(row) if row is not None else None


def _newest(session: Session, domain: str, version: str, lock: bool = False) -> ApprovalTable | None:
    wanted = (
        select(ApprovalTable)
        .where(ApprovalTable.domain == domain, ApprovalTable.version == version)
        .order_by(ApprovalTable.id.desc())
        .limit(1)
    )
    return session.scalar(wanted.with_for_update() if lock else wanted)
