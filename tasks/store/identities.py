"""Who may use the gateway: names, roles and keys.

A key is shown once, when it is made; the store keeps its SHA-256 only. 256 random bits need no slow hash: nobody
can try them all. A key has the form fw_<8 characters: the identity's id>_<43 characters>.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError

from tasks.store.columns import check_text
from tasks.store.errors import BadValue, NameTaken, StoreError, UnknownIdentity
from tasks.store.schema import ROLES, AnswerTable, ApprovalTable, ConversationTable, FeedbackTable, IdentityTable
from tasks.store.schema import LedgerTable as Ledger
from tasks.store.store import Store, now

KEY = re.compile(r"fw_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
FORGOTTEN = "forgotten"


@dataclass(frozen=True)
class Identity:
    """Somebody who may use the gateway."""

    id: str
    name: str
    role: str
    disabled: bool = field(default=False, compare=False)
    created_at: datetime | None = field(default=None, compare=False)


def _identity(row: IdentityTable) -> Identity:
    return Identity(row.id, row.name, row.role, row.disabled_at is not None, row.created_at)


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def create_identity(store: Store, name: str, role: str) -> tuple[Identity, str]:
    """A new identity and its key, which cannot be had again.

    Raises:
        BadValue: the role is none of chat, review, admin, or the name is empty or longer than 200 characters.
        NameTaken: there is one of this name, disabled or not.
    """
    if role not in ROLES:
        raise BadValue(f"the role {role!r} is none of {', '.join(ROLES)}")
    if not 1 <= len(check_text(name, "the name").strip()) <= 200 or not name.isprintable():
        raise BadValue("a name has 1 to 200 printable characters")
    for _ in range(5):  # two identities with one id in four billion: try another
        number = secrets.token_hex(4)
        key = f"fw_{number}_{secrets.token_urlsafe(32)}"
        row = IdentityTable(id=number, name=name.strip(), role=role, key_sha256=_sha256(key), created_at=now())
        try:
            with store.write() as session:
                session.add(row)
            return _identity(row), key
        except IntegrityError:
            if any(known.name == name.strip() for known in list_identities(store)):
                raise NameTaken(f"there is an identity called {name.strip()!r}; choose another name") from None
    raise StoreError("no identity could be made; try again")


def authenticate(store: Store, key: str) -> Identity | None:
    """Whose key this is; None where it is nobody's, or its identity is disabled. Takes the same time for both."""
    form = KEY.fullmatch(key)
    if form is None:
        return None
    with store.read() as session:
        row = session.get(IdentityTable, form.group(1))
    expected = row.key_sha256 if row is not None else "0" * 64
    right = hmac.compare_digest(_sha256(key), expected)
    if row is None or not right or row.disabled_at is not None:
        return None
    return _identity(row)


def disable_identity(store: Store, name: str) -> Identity:
    """Make an identity's key worthless, at once. What it said stays. Again is no change.

    Raises:
        UnknownIdentity: there is none of this name.
    """
    with store.write() as session:
        session.execute(
            update(IdentityTable)
            .where(IdentityTable.name == name, IdentityTable.disabled_at.is_(None))
            .values(disabled_at=now())
        )
        row = session.scalar(select(IdentityTable).where(IdentityTable.name == name))
        if row is None:
            raise UnknownIdentity(f"there is no identity called {name!r}")
        return _identity(row)


def list_identities(store: Store) -> list[Identity]:
    """All of them, oldest first, the disabled ones too."""
    with store.read() as session:
        rows = session.scalars(select(IdentityTable).order_by(IdentityTable.created_at, IdentityTable.id))
        return [_identity(row) for row in rows]


def forget_identity(store: Store, name: str) -> dict[str, int]:
    """Delete a person: identity, conversations, drafts, answers, feedback; returns how many rows of each main table.

    The ledger and approvals keep what was decided; the name in them becomes "forgotten".

    Raises:
        UnknownIdentity: there is none of this name.
    """
    with store.write() as session:
        row = session.scalar(select(IdentityTable).where(IdentityTable.name == name))
        if row is None:
            raise UnknownIdentity(f"there is no identity called {name!r}")
        gone = {}
        for table in (ConversationTable, AnswerTable, FeedbackTable):
            count = select(func.count()).select_from(table).where(table.identity_id == row.id)
            gone[str(table.__tablename__)] = int(session.execute(count).scalar_one())
        session.execute(update(Ledger).where(Ledger.actor == name).values(actor=FORGOTTEN))
        session.execute(update(ApprovalTable).where(ApprovalTable.decided_by == name).values(decided_by=FORGOTTEN))
        session.execute(delete(IdentityTable).where(IdentityTable.id == row.id))
    return gone
