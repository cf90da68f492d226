"""Who may use the gateway: names, roles and keys.

A key is shown once, when it is made; the store keeps its SHA-256 only. 256 random bits need no slow hash: nobody
can try them all. A key has the form fw_<8 characters: the identity's id>_<43 characters>.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from tasks.core.clock import now
from tasks.store.errors import BadValue, StoreError
from tasks.store.schema import (
    ROLES,
    AnswerRow,
    Approval,
    ConversationRow,
    FeedbackRow,
    Identity,
    LedgerEntry,
    check_text,
)
from tasks.store.store import Store

KEY = re.compile(r"fw_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
FORGOTTEN = "forgotten"


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def create_identity(store: Store, name: str, role: str) -> tuple[Identity, str]:
    """A new identity and its key, which cannot be had again.

    Raises:
        BadValue: the role is none of chat, review, admin, or the name is empty or longer than 200 characters.
        StoreError: there is one of this name, disabled or not.
    """
    if role not in ROLES:
        raise BadValue(f"the role {role!r} is none of {', '.join(ROLES)}")
    if not 1 <= len(check_text(name, "the name").strip()) <= 200 or not name.isprintable():
        raise BadValue("a name has 1 to 200 printable characters")
    number = secrets.token_hex(4)
    key = f"fw_{number}_{secrets.token_urlsafe(32)}"
    row = Identity(id=number, name=name.strip(), role=role, key_sha256=_sha256(key), created_at=now())
    store.add(row, StoreError(f"there is an identity called {name.strip()!r}; choose another name"))
    return row, key


def authenticate(store: Store, key: str) -> Identity | None:
    """Whose key this is; None where it is nobody's, or its identity is disabled. Takes the same time for both."""
    form = KEY.fullmatch(key)
    if form is None:
        return None
    with store.read() as session:
        row = session.get(Identity, form.group(1))
    expected = row.key_sha256 if row is not None else "0" * 64
    right = hmac.compare_digest(_sha256(key), expected)
    if row is None or not right or row.disabled_at is not None:
        return None
    return row


def disable_identity(store: Store, name: str) -> Identity:
    """Make an identity's key worthless, at once. What it said stays. Again is no change.

    Raises:
        StoreError: there is none of this name.
    """
    with store.write() as session:
        row = _named(session, name)
        row.disabled_at = row.disabled_at or now()
        return row


def _named(session: Session, name: str) -> Identity:
    row = session.scalar(select(Identity).where(Identity.name == name))
    if row is None:
        raise StoreError(f"there is no identity called {name!r}")
    return row


def get_identity(store: Store, identity_id: str) -> Identity | None:
    """The identity of this id, unless it is disabled."""
    with store.read() as session:
        row = session.get(Identity, identity_id)
    return row if row is not None and row.disabled_at is None else None


def list_identities(store: Store) -> list[Identity]:
    """All of them, oldest first, the disabled ones too."""
    with store.read() as session:
        return list(session.scalars(select(Identity).order_by(Identity.created_at, Identity.id)))


def delete_identity(session: Session, name: str) -> dict[str, int]:
    """Delete a person: identity, conversations, drafts, answers, feedback; returns how many rows of each main table.

    The ledger, approvals and accepted corrections keep what was decided; the name in them becomes "forgotten".

    Raises:
        StoreError: there is none of this name.
    """
    row = _named(session, name)
    gone = {}
    for table in (ConversationRow, AnswerRow, FeedbackRow):
        count = select(func.count()).select_from(table).where(table.identity_id == row.id)
        gone[str(table.__tablename__)] = int(session.execute(count).scalar_one())
    session.execute(update(LedgerEntry).where(LedgerEntry.actor == name).values(actor=FORGOTTEN))
    session.execute(update(FeedbackRow).where(FeedbackRow.accepted_by == name).values(accepted_by=FORGOTTEN))
    session.execute(update(Approval).where(Approval.decided_by == name).values(decided_by=FORGOTTEN))
    session.execute(delete(Identity).where(Identity.id == row.id))
    return gone
