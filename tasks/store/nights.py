"""Nights: which feedback a run of the nightly flow works on, exactly once and replayable.

Opening a night claims every row that no night has yet, in one transaction, for good. A night that was begun and not
closed is taken up again with the rows it has: it claims nothing more. A row that arrives or commits later waits for the
next night, whatever its number, so the set behind a night never grows; it shrinks only when a person is forgotten or
takes something back. What is taken back before a night is never claimed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, and_, select, update
from sqlalchemy.orm import Session, aliased

from tasks.core.clock import now
from tasks.store.errors import StoreError
from tasks.store.identities import list_identities
from tasks.store.schema import AnswerRow, FeedbackRow, Night
from tasks.store.store import Store


def open_night(store: Store, domain: str, flow_run_id: str) -> Night:
    """The domain's unfinished night as it is, else a new one that claims every row unclaimed at this moment."""

    def find_or_begin(session: Session) -> Night:
        unfinished = select(Night).where(Night.domain == domain, Night.closed_at.is_(None))
        return session.scalar(unfinished) or _begin(session, domain, flow_run_id)

    return store.write_or_look_again(find_or_begin)


def _begin(session: Session, domain: str, flow_run_id: str) -> Night:
    night = Night(domain=domain, started_at=now(), flow_run_id=flow_run_id)
    session.add(night)
    session.flush()
    waiting = (FeedbackRow.domain == domain, FeedbackRow.night.is_(None), FeedbackRow.withdrawn_at.is_(None))
    unclaimed = update(FeedbackRow).where(*waiting)
    claimed = session.execute(unclaimed.values(night=night.number).execution_options(synchronize_session=False))
    night.rows = cast(CursorResult[Any], claimed).rowcount
    return night


def feedback_upto(store: Store, domain: str, night: int) -> list[tuple[FeedbackRow, AnswerRow, AnswerRow | None]]:
    """The reactions that this night and earlier ones claimed, in the order of arrival, each with its answer.

    The third is the other answer of its draft, where there is one. What forgotten people said is gone, and so is what
    was taken back.
    """
    other = aliased(AnswerRow)
    found = (
        select(FeedbackRow, AnswerRow, other)
        .join(AnswerRow, AnswerRow.id == FeedbackRow.answer_id)
        .outerjoin(other, and_(other.draft_id == AnswerRow.draft_id, other.id != AnswerRow.id))
        .where(FeedbackRow.domain == domain, FeedbackRow.night <= night, FeedbackRow.withdrawn_at.is_(None))
        .order_by(FeedbackRow.seq)
    )
    with store.read() as session:
        return [(row, answer, second) for row, answer, second in session.execute(found)]


def note_snapshot(store: Store, number: int, digest: str | None) -> None:
    """Note the snapshot that a night works on.

    Raises:
        StoreError: there is no night of this number.
    """
    with store.write() as session:
        _get(session, number).snapshot = digest


def close_night(store: Store, number: int, outcome: str, reason: str, version: str | None = None) -> Night:
    """End a night: its outcome is skip, promote, hold, reject, failed or nothing. The same outcome again is no change.

    Raises:
        StoreError: there is no night of this number, or it ended with another outcome.
    """
    with store.write() as session:
        night = _get(session, number)
        if night.outcome is not None and night.outcome != outcome:
            raise StoreError(f"night {number} ended with {night.outcome}; it cannot end with {outcome} as well")
        if night.outcome is None:
            night.outcome, night.reason, night.closed_at = outcome, reason, now()
            night.version = version if version is not None else night.version
        return night


def _get(session: Session, number: int) -> Night:
    night = session.get(Night, number, with_for_update=True)
    if night is None:
        raise StoreError(f"there is no night {number}")
    return night


def last_nights(store: Store, domain: str, n: int) -> list[Night]:
    """The last `n` nights, newest first."""
    with store.read() as session:
        return list(session.scalars(select(Night).where(Night.domain == domain).order_by(Night.number.desc()).limit(n)))


def last_finished(store: Store, domain: str) -> datetime | None:
    """When the last night that did not fail ended."""
    nights = last_nights(store, domain, 60)
    return max((night.closed_at for night in nights if night.closed_at and night.outcome != "failed"), default=None)


def overdue(store: Store, domain: str, hours: float, at: datetime) -> str | None:
    """The alarm: why somebody should look, in a sentence, or None. `hours` is params.nightly.alarm_hours.

    A night counts if it ended with any outcome but `failed`; a reasoned skip is a night too. Before the first night the
    clock starts with the first identity, which `flywheel up` makes: a new installation is quiet on its first day.
    """
    finished = last_finished(store, domain)
    days = [identity.created_at for identity in list_identities(store)]
    since = finished or min(days, default=None)
    if since is None or (at - since).total_seconds() <= hours * 3600:
        return None
    ago = f"{(at - since).total_seconds() / 3600:.0f} h"
    what = f"the last night that finished ended {ago} ago" if finished else f"no night has finished in the first {ago}"
    newest = last_nights(store, domain, 1)
    if newest and newest[0].outcome == "failed":
        what += f"; night {newest[0].number} failed: {newest[0].reason}"
    elif newest and newest[0].outcome is None:
        what += f"; night {newest[0].number} was begun and has not ended"
    return f"{what} (the alarm is set to {hours:g} h)"
