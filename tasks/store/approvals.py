"""Approvals: the question whether a version may be promoted, and a person's answer. Kept here, not in the scheduler."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from tasks.core.clock import now
from tasks.store.errors import StoreError
from tasks.store.schema import Approval
from tasks.store.store import Store


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


def get(store: Store, domain: str, version: str) -> Approval | None:
    """The newest question about a version, with its answer if there is one."""
    with store.read() as session:
        return _newest(session, domain, version)


def _newest(session: Session, domain: str, version: str, lock: bool = False) -> Approval | None:
    wanted = select(Approval).where(Approval.domain == domain, Approval.version == version)
    newest = wanted.order_by(Approval.id.desc()).limit(1)
    return session.scalar(newest.with_for_update() if lock else newest)
