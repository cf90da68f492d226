"""Nights: which feedback a run of the nightly flow works on, exactly once and replayable.

Opening a night claims every row that no night has yet, in one transaction, for good. A night that was begun and not
closed is taken up again with the rows it has: it claims nothing more. A row that arrives or commits later waits for the
next night, whatever its number, so the set behind a night never grows; it shrinks only when a person is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tasks.store.errors import BadValue, NightClosed, StoreUnavailable, UnknownNight
from tasks.store.schema import OUTCOMES, AnswerTable, DraftTable, FeedbackTable, NightTable
from tasks.store.store import Store, now

CHANGEABLE = ("snapshot", "flow_run_id", "version", "reason")
# What feedback_upto gives of the feedback, of the answer it is about, and of the draft's other answer.
SAID = ("seq", "id", "kind", "thumb", "rating", "text", "night", "identity_id", "answer_id")
SERVED = (
    "conversation_id",
    "messages",
    "version",
    "digest",
    "prompt_sha256",
    "finish_reason",
    "who",
    "draft_id",
    "position",
)
PARTNER = ("text", "version", "digest", "who", "position", "finish_reason")


@dataclass(frozen=True)
class Night:
    """One run of the nightly flow. `rows` is how many it claimed."""

    number: int
    domain: str
    started_at: datetime
    closed_at: datetime | None
    outcome: str | None
    snapshot: str | None
    flow_run_id: str
    version: str | None
    reason: str
    rows: int


def _night(row: NightTable) -> Night:
    return Night(**{field.name: getattr(row, field.name) for field in fields(Night)})


def open_night(store: Store, domain: str, flow_run_id: str) -> Night:
    """The domain's unfinished night as it is, else a new one that claims every row unclaimed at this moment."""
    for _ in range(3):
        try:
            with store.write() as session:
                open_one = select(NightTable).where(NightTable.domain == domain, NightTable.closed_at.is_(None))
                row = session.scalar(open_one) or _begin(session, domain, flow_run_id)
                return _night(row)
        except IntegrityError:
            continue  # another began it at the same time: take that one up
    raise StoreUnavailable("the night could not be opened; try again")


def _begin(session: Session, domain: str, flow_run_id: str) -> NightTable:
    row = NightTable(domain=domain, started_at=now(), flow_run_id=flow_run_id, reason="", rows=0)
    session.add(row)
    session.flush()
    claimed = session.execute(
        update(FeedbackTable)
        .where(FeedbackTable.domain == domain, FeedbackTable.night.is_(None))
        .values(night=row.number)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(claimed, CursorResult)  # noqa: S101  (for the types)
    row.rows = claimed.rowcount
    session.flush()
    return row


def feedback_upto(store: Store, domain: str, night: int) -> list[dict[str, Any]]:
    """Every row of this domain claimed by this night or an earlier one, with its answer, in the order of arrival.

    Each is a dict that JSON can hold: seq, id, kind, thumb, rating, text, created_at (ISO 8601, UTC), night,
    identity_id, answer_id, conversation_id, messages, answer (its text), version, digest, prompt_sha256,
    finish_reason, who, draft_id, position, how (of the draft), others: the other answers of the draft, each a dict of
    answer_id, text, version, digest, who, position, finish_reason. Rows of forgotten people are gone.
    """
    with store.read() as session:
        found = session.execute(
            select(FeedbackTable, AnswerTable, DraftTable.how)
            .join(AnswerTable, AnswerTable.id == FeedbackTable.answer_id)
            .outerjoin(DraftTable, DraftTable.id == AnswerTable.draft_id)
            .where(FeedbackTable.domain == domain, FeedbackTable.night <= night)
            .order_by(FeedbackTable.seq)
        ).all()
        drafts = _drafts(session, domain, night)
        return [_joined(row, answer, how, drafts.get(answer.draft_id, [])) for row, answer, how in found]


def _drafts(session: Session, domain: str, night: int) -> dict[str | None, list[AnswerTable]]:
    """All answers of every draft that something was said about, by draft."""
    spoken_of = (
        select(AnswerTable.draft_id)
        .join(FeedbackTable, FeedbackTable.answer_id == AnswerTable.id)
        .where(FeedbackTable.domain == domain, FeedbackTable.night <= night, AnswerTable.draft_id.is_not(None))
    )
    rows = session.scalars(
        select(AnswerTable)
        .where(AnswerTable.draft_id.in_(spoken_of))
        .order_by(AnswerTable.draft_id, AnswerTable.position)
    )
    drafts: dict[str | None, list[AnswerTable]] = {}
    for row in rows:
        drafts.setdefault(row.draft_id, []).append(row)
    return drafts


def _joined(row: FeedbackTable, answer: AnswerTable, how: str | None, draft: list[AnswerTable]) -> dict[str, Any]:
    others = [{"answer_id": other.id} | _fields(other, PARTNER) for other in draft if other.id != answer.id]
    own = {"created_at": row.created_at.isoformat(), "answer": answer.text, "how": how, "others": others}
    return _fields(row, SAID) | _fields(answer, SERVED) | own


def _fields(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def update_night(store: Store, number: int, **values: Any) -> Night:
    """Note something about a night: snapshot, flow_run_id, version or reason.

    Raises:
        UnknownNight: there is none of this number.
        BadValue: another field than these.
    """
    wrong = sorted(values.keys() - set(CHANGEABLE))
    if wrong:
        raise BadValue(f"of a night only {', '.join(CHANGEABLE)} can be changed, not {', '.join(wrong)}")
    with store.write() as session:
        row = _get(session, number)
        for name, value in values.items():
            setattr(row, name, value)
        return _night(row)


def close_night(store: Store, number: int, outcome: str, reason: str, version: str | None = None) -> Night:
    """End a night: its outcome is skip, promote, hold, reject, failed or nothing. The same outcome again is no change.

    Raises:
        UnknownNight: there is none of this number.
        NightClosed: it ended with another outcome.
    """
    if outcome not in OUTCOMES:
        raise BadValue(f"the outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
    with store.write() as session:
        row = _get(session, number)
        if row.outcome is not None and row.outcome != outcome:
            raise NightClosed(f"night {number} ended with {row.outcome}; it cannot end with {outcome} as well")
        if row.outcome is None:
            row.outcome, row.reason, row.closed_at = outcome, reason, now()
            row.version = version if version is not None else row.version
        return _night(row)


def _get(session: Session, number: int) -> NightTable:
    row = session.get(NightTable, number, with_for_update=True)
    if row is None:
        raise UnknownNight(f"there is no night {number}")
    return row


def get_night(store: Store, number: int) -> Night | None:
    """The night of this number."""
    with store.read() as session:
        row = session.get(NightTable, number)
        return _night(row) if row is not None else None


def last_nights(store: Store, domain: str, n: int) -> list[Night]:
    """The last `n` nights, newest first."""
    with store.read() as session:
        wanted = select(NightTable).where(NightTable.domain == domain).order_by(NightTable.number.desc()).limit(n)
        return [_night(row) for row in session.scalars(wanted)]
