"""Memory: the corrections that count at once, for whom, and how a reaction is taken back or a correction accepted.

What was taken back counts nowhere: no night claims it, and of what an earlier night claimed no passage is found.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from tasks.core.clock import now
from tasks.store.errors import BadValue, UnknownFeedback
from tasks.store.schema import AnswerRow, FeedbackRow, Forgotten, Identity
from tasks.store.store import Store

MOST = 200  # corrections that count for one identity; older ones wait for the night
REVIEWERS = ("review", "admin")


@dataclass(frozen=True)
class Correction:
    """What was asked, and what the answer should have been; `own` where the one whose memory this is said so."""

    feedback: str
    question: str
    text: str
    own: bool


@dataclass(frozen=True)
class Memory:
    """The corrections that count, newest first, and those that nights claimed before they were taken back.

    `forgotten` are the hashes of names of what was forgotten (tasks/store/forgotten.py).
    """

    corrections: list[Correction]
    withdrawn: frozenset[str]
    forgotten: frozenset[str]


def memory_of(store: Store, domain: str, identity_id: str | None) -> Memory:
    """The newest corrections that were accepted, and with an identity all of its own, of questions asked alone."""
    row = FeedbackRow
    said = (row.domain == domain, row.kind == "correction")
    counts = or_(row.accepted_at.is_not(None), row.identity_id == identity_id)
    found = (
        select(row.id, row.identity_id, row.text, AnswerRow.messages)
        .join(AnswerRow, AnswerRow.id == row.answer_id)
        .where(*said, row.withdrawn_at.is_(None), counts)
        .order_by(row.seq.desc())
        .limit(MOST)
    )
    gone = select(row.id).where(*said, row.withdrawn_at.is_not(None), row.night.is_not(None))
    corrections: dict[str, Correction] = {}
    with store.read() as session:
        for feedback, owner, text, messages in session.execute(found):
            question = messages[-1]["content"]
            # The question of a later turn means nothing by itself. Of several corrections of one the newest counts.
            if [message["role"] for message in messages if message["role"] != "system"] == ["user"]:
                one = Correction(feedback, question, text, owner == identity_id)
                corrections.setdefault(" ".join(question.casefold().split()), one)
        left_out = session.scalars(select(Forgotten.name_sha256).where(Forgotten.domain == domain))
        return Memory(list(corrections.values()), frozenset(session.scalars(gone)), frozenset(left_out))


def withdraw(store: Store, feedback_id: str, identity: Identity) -> FeedbackRow:
    """Take a reaction back: one's own, or anybody's as review or admin. Again is no change.

    Raises:
        UnknownFeedback: there is none of this id, or it is another's.
    """
    with store.write() as session:
        row = _get(session, feedback_id)
        if row.identity_id != identity.id and identity.role not in REVIEWERS:
            raise UnknownFeedback("there is no such feedback of this identity")
        row.withdrawn_at = row.withdrawn_at or now()
        return row


def accept(store: Store, feedback_id: str, by: str) -> FeedbackRow:
    """Let a correction count for everybody; `by` is the reviewer's name. Again is no change.

    Raises:
        UnknownFeedback: there is none of this id.
        BadValue: it is no correction, or was taken back.
    """
    with store.write() as session:
        row = _get(session, feedback_id)
        if row.kind != "correction" or row.withdrawn_at is not None:
            raise BadValue("only a correction that was not taken back can be accepted", "feedback_id")
        if row.accepted_at is None:
            row.accepted_at, row.accepted_by = now(), by
        return row


def _get(session: Session, feedback_id: str) -> FeedbackRow:
    row = session.scalar(select(FeedbackRow).where(FeedbackRow.id == feedback_id).with_for_update())
    if row is None:
        raise UnknownFeedback("there is no such feedback")
    return row
