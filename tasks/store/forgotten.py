"""Forgetting in the database: one transaction deletes rows, and leaves hashes of their names and a line in the ledger.

The ledger line is the beginning of a forgetting, whose number is its certificate's: who is killed after it goes on.
Passages that others' answers kept of it lose their text. What a model answered from them stays, as its own words.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Text, delete, select, type_coerce
from sqlalchemy.orm import Session

from tasks.core import layout
from tasks.core.clock import now
from tasks.core.files import sha256_bytes
from tasks.store import ledger
from tasks.store.identities import delete_identity
from tasks.store.schema import AnswerRow, FeedbackRow, Forgotten, Identity, LedgerEntry
from tasks.store.store import Store

EVENT = "forgotten"
CERTIFICATES = layout.HOME / "forgotten"


@dataclass(frozen=True)
class Asked:
    """What is to be forgotten: a person by name, feedback rows by id, or whatever records call by `names`."""

    kind: str  # identity, feedback, example or source
    name: str
    domain: str
    feedback: tuple[str, ...] = ()
    names: frozenset[str] = field(default=frozenset())

    @property
    def sha256(self) -> str:
        """Of the name that was asked for."""
        return sha256_bytes(self.name.encode())


class _Undo(Exception):
    """The end of a dry run."""


def forget(
    store: Store, asked: Asked, certificate: str, actor: str, dry: bool = False
) -> tuple[dict[str, int], dict[str, frozenset[str]]]:
    """Delete it, or with `dry` only try.

    Returns:
        How many rows of each table, and the hashes of its names by domain.
    """
    counts: dict[str, int] = {}
    with contextlib.suppress(_Undo), store.write() as session:
        rows = _rows(session, asked)
        names = {(asked.domain, name) for name in asked.names}
        names |= {(row.domain, name) for row in rows for name in (row.id, f"feedback:{row.id}")}
        counts["passages"] = _blank(session, {name for _, name in names}, bool(rows))
        if asked.kind == "identity" and session.scalar(select(Identity.id).where(Identity.name == asked.name)):
            counts |= {"identities": 1, **delete_identity(session, asked.name)}
        else:
            session.execute(delete(FeedbackRow).where(FeedbackRow.id.in_([row.id for row in rows])))
            counts["feedback"] = len(rows)
        hashed = {(domain, sha256_bytes(name.encode())) for domain, name in names}
        session.add_all(Forgotten(certificate, *one) for one in sorted(hashed))
        detail = {"kind": asked.kind, "rows": counts}
        session.add(LedgerEntry(asked.domain, EVENT, None, asked.sha256, actor, certificate, detail, now()))
        if dry:
            raise _Undo
    return counts, _by_domain(hashed)


def _by_domain(names: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for domain, name in names:
        found.setdefault(domain, set()).add(name)
    return {domain: frozenset(hashes) for domain, hashes in found.items()}


def _rows(session: Session, asked: Asked) -> list[FeedbackRow]:
    """The reactions that go: the person's, or those that are named."""
    own = select(Identity.id).where(Identity.name == asked.name).scalar_subquery()
    theirs = FeedbackRow.identity_id == own if asked.kind == "identity" else FeedbackRow.id.in_(asked.feedback)
    return list(session.scalars(select(FeedbackRow).where(theirs)))


def _blank(session: Session, names: set[str], corrections: bool) -> int:
    """Take the texts of passages of these names out of the answers that were given from them; returns how many."""
    wholes = tuple(f"{name}{end}" for name in names for end in "/#:")
    patterns = ["feedback:"] if corrections else [json.dumps(name, ensure_ascii=False)[1:-1] for name in names]
    kept, count = type_coerce(AnswerRow.passages, Text), 0
    for pattern in patterns:
        for row in session.scalars(select(AnswerRow).where(kept.contains(pattern, autoescape=True))):
            texts: list[dict[str, Any]] = row.passages or []
            told = [one for one in texts if one["text"] and f"{one['source']}/".startswith(wholes)]
            count += len(told)
            row.passages = [one | {"question": "", "text": ""} if one in told else one for one in texts]
    return count


def begun(store: Store, domain: str, certificate: str = "", asked: Asked | None = None) -> LedgerEntry | None:
    """The newest forgetting of this certificate, or of what is asked."""
    for entry in ledger.entries(store, domain, EVENT, limit=100_000):
        same = asked and (entry.digest, (entry.detail or {})["kind"]) == (asked.sha256, asked.kind)
        if same or entry.reason == certificate:
            return entry
    return None


def hashes_of(store: Store, certificate: str) -> dict[str, frozenset[str]]:
    """The hashes of names that a forgetting left, by domain."""
    wanted = select(Forgotten.domain, Forgotten.name_sha256).where(Forgotten.certificate == certificate)
    with store.read() as session:
        return _by_domain((domain, name) for domain, name in session.execute(wanted))


def still_there(store: Store, kind: str, sha256: str, gone: Callable[[str], bool]) -> list[str]:
    """What the database holds of something that was forgotten, in words; `gone` tells a name of it."""
    with store.read() as session:
        people: Iterable[str] = session.scalars(select(Identity.name)) if kind == "identity" else ()
        found = ["the database: an identity of this name" for name in people if sha256_bytes(name.encode()) == sha256]
        found += [f"the database: feedback {one}" for one in session.scalars(select(FeedbackRow.id)) if gone(one)]
        answers = session.execute(select(AnswerRow.id, AnswerRow.passages).where(AnswerRow.passages.is_not(None)))
        told = (answer for answer, passages in answers if any(p["text"] and gone(p["source"]) for p in passages))
        return found + [f"the database: a passage of answer {answer}" for answer in told]
