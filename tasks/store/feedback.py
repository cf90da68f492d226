"""What people say about answers: stored once for each key, only on answers they were served, durable when returned."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tasks.store.columns import check_text
from tasks.store.errors import BadValue, KeyReused, NotADraft, StoreUnavailable, UnknownAnswer
from tasks.store.identities import Identity
from tasks.store.schema import KINDS, AnswerTable, FeedbackTable
from tasks.store.store import Store, new_id, now

MAX_KEY = 200


@dataclass(frozen=True)
class FeedbackIn:
    """What somebody sends. Exactly the value of its kind is set; a choice needs none: the answer is what was chosen."""

    key: str
    answer_id: str
    kind: str
    thumb: int | None = None
    rating: int | None = None
    text: str | None = None


@dataclass(frozen=True)
class FeedbackRow:
    """What is stored. `seq` is the order of arrival, `night` the night that claimed the row."""

    seq: int
    id: str
    key: str
    answer_id: str
    identity_id: str
    kind: str
    thumb: int | None
    rating: int | None
    text: str | None
    created_at: datetime
    night: int | None


def _row(row: FeedbackTable) -> FeedbackRow:
    return FeedbackRow(**{field.name: getattr(row, field.name) for field in fields(FeedbackRow)})


def check_feedback(given: FeedbackIn) -> None:
    """Refuse what is no feedback of its kind.

    Raises:
        BadValue: the message names the field and what it must be.
    """
    if not 1 <= len(check_text(given.key, "the idempotency key")) <= MAX_KEY:
        raise BadValue(f"the idempotency key has 1 to {MAX_KEY} characters")
    check_text(given.answer_id, "answer_id")
    if given.kind not in KINDS:
        raise BadValue(f"kind must be one of {', '.join(KINDS)}")
    needed = {"thumb": "thumb", "rating": "rating", "correction": "text", "comment": "text"}.get(given.kind)
    for name in ("thumb", "rating", "text"):
        if (getattr(given, name) is not None) != (name == needed):
            raise BadValue(f"feedback of kind {given.kind} {'needs' if name == needed else 'has no'} {name}")
    if given.thumb is not None and (type(given.thumb) is not int or given.thumb not in (-1, 1)):
        raise BadValue("thumb must be 1 (up) or -1 (down)")
    if given.rating is not None and (type(given.rating) is not int or not 1 <= given.rating <= 5):
        raise BadValue("rating must be a whole number from 1 to 5")
    if given.text is not None and not check_text(given.text, "text").strip():
        raise BadValue("text must not be empty")


def record_feedback(store: Store, identity: Identity, given: FeedbackIn) -> tuple[FeedbackRow, bool]:
    """The stored row, and whether this call stored it. Durable when this returns; the same call again changes nothing.

    Raises:
        BadValue: it is no feedback of its kind, or a text cannot be stored.
        KeyReused: this identity used the key for other content.
        UnknownAnswer: no such answer was served to this identity.
        NotADraft: a choice, but the answer was the only one.
    """
    check_feedback(given)
    for _ in range(3):
        try:
            return _record(store, identity, given)
        except IntegrityError:
            continue  # the same key arrived twice at once, or the answer went: look again
    raise StoreUnavailable("the feedback could not be stored; try again with the same key")


def _record(store: Store, identity: Identity, given: FeedbackIn) -> tuple[FeedbackRow, bool]:
    with store.write() as session:
        known = _find(session, identity.id, given.key)
        if known is not None:
            if any(getattr(known, field.name) != getattr(given, field.name) for field in fields(FeedbackIn)):
                raise KeyReused("this idempotency key was used for other feedback; use a new one")
            return _row(known), False
        answer = _answer(session, identity, given)
        row = FeedbackTable(
            id=new_id("fb"), identity_id=identity.id, domain=answer.domain, created_at=now(), night=None, **vars(given)
        )
        session.add(row)
        session.flush()
        stored = _row(row)
    return stored, True


def _find(session: Session, identity_id: str, key: str) -> FeedbackTable | None:
    return session.scalar(
        select(FeedbackTable).where(FeedbackTable.identity_id == identity_id, FeedbackTable.key == key)
    )


def _answer(session: Session, identity: Identity, given: FeedbackIn) -> AnswerTable:
    answer = session.get(AnswerTable, given.answer_id)
    if answer is None or answer.identity_id != identity.id or answer.finish_reason == "error":
        raise UnknownAnswer("no such answer was served to you")
    if given.kind == "choice" and answer.draft_id is None:
        raise NotADraft("this answer was the only one: there was nothing to choose from")
    return answer


def get_feedback(store: Store, feedback_id: str) -> FeedbackRow | None:
    """The row of this id."""
    with store.read() as session:
        row = session.scalar(select(FeedbackTable).where(FeedbackTable.id == feedback_id))
        return _row(row) if row is not None else None


def feedback_on(store: Store, answer_id: str) -> list[FeedbackRow]:
    """Everything said about one answer, in the order of arrival."""
    with store.read() as session:
        rows = session.scalars(
            select(FeedbackTable).where(FeedbackTable.answer_id == answer_id).order_by(FeedbackTable.seq)
        )
        return [_row(row) for row in rows]
