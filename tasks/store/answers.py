"""Conversations, the answers that were served in them, and what people say about these.

Feedback is stored once for each key, only on answers they were served, durable when returned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, Select, and_, case, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from tasks.core.clock import now
from tasks.store.errors import BadValue, KeyReused, NotADraft, StoreError, UnknownAnswer, UnknownConversation
from tasks.store.schema import KINDS, AnswerRow, ConversationRow, DraftRow, FeedbackRow, Identity, check_text, storable
from tasks.store.store import Store, new_id

MAX_KEY = 200
NEEDED = {"thumb": "thumb", "rating": "rating", "correction": "text", "comment": "text"}
JUDGING = ("thumb", "rating", "correction")


def ensure_conversation(store: Store, conversation_id: str | None, identity: Identity, domain: str) -> str:
    """The conversation's id, checked to be this identity's; without one, a new conversation.

    Raises:
        UnknownConversation: there is none of this id in this domain, or it is another identity's.
        StoreError: the identity was forgotten meanwhile.
    """
    if conversation_id is None:
        row = ConversationRow(id=new_id("conv"), identity_id=identity.id, domain=domain, created_at=now())
        store.add(row, StoreError("this identity is no longer there"))
        return row.id
    with store.read() as session:
        found = session.get(ConversationRow, conversation_id)
    if found is None or (found.domain, found.identity_id) != (domain, identity.id):
        raise UnknownConversation("there is no such conversation of this identity")
    return found.id


def open_draft(store: Store, conversation_id: str, how: str) -> str:
    """The id of a new pair of drafts; `how` says where the second comes from: sample or challenger.

    Raises:
        UnknownConversation: there is no such conversation.
    """
    row = DraftRow(id=new_id("draft"), conversation_id=conversation_id, how=how, created_at=now())
    store.add(row, UnknownConversation("there is no such conversation"))
    return row.id


def record_answer(store: Store, answer: AnswerRow) -> None:
    """Store an answer; durable when this returns. The same one again is no change, so a lost reply may be retried.

    What a model wrote is stored with U+FFFD for characters that cannot be stored; a prompt with them is refused.

    Raises:
        UnknownConversation: the conversation or draft is not there, or not this identity's.
        StoreError: another answer has this id, or this place in the draft.
        BadValue: a value that cannot be stored.
    """
    answer.text = storable(answer.text)
    try:
        with store.write() as session:
            conversation = session.get(ConversationRow, answer.conversation_id)
            owner = (answer.domain, answer.identity_id)
            if conversation is None or (conversation.domain, conversation.identity_id) != owner:
                raise UnknownConversation("there is no such conversation of this identity")
            draft = session.get(DraftRow, answer.draft_id) if answer.draft_id is not None else None
            if answer.draft_id is not None and (draft is None or draft.conversation_id != conversation.id):
                raise UnknownConversation("there is no such draft in this conversation")
            session.add(answer)
    except IntegrityError:
        if get_answer(store, answer.id) != answer:
            raise StoreError("another answer has this id or its place in the draft, or a word is unknown") from None


def get_answer(store: Store, answer_id: str) -> AnswerRow | None:
    """The answer of this id, whoever it was served to."""
    with store.read() as session:
        return session.get(AnswerRow, answer_id)


def answers_of(store: Store, conversation_id: str) -> list[AnswerRow]:
    """The answers that were served in a conversation, in order."""
    with store.read() as session:
        found = select(AnswerRow).where(AnswerRow.conversation_id == conversation_id)
        return list(session.scalars(found.order_by(AnswerRow.created_at, AnswerRow.id)))


@dataclass(frozen=True)
class FeedbackIn:
    """What somebody sends. Exactly the value of its kind is set; a choice needs none: the answer is what was chosen.

    A correction may have `other_words` besides: its question put differently.
    """

    key: str
    answer_id: str
    kind: str
    thumb: int | None = None
    rating: int | None = None
    text: str | None = None
    other_words: str | None = None


def check_feedback(given: FeedbackIn) -> None:
    """Refuse what is no feedback of its kind.

    Raises:
        BadValue: the message names the field and what it must be.
    """
    if not 1 <= len(check_text(given.key, "the idempotency key")) <= MAX_KEY:
        raise BadValue(f"the idempotency key has 1 to {MAX_KEY} characters", "idempotency_key")
    check_text(given.answer_id, "answer_id")
    if given.kind not in KINDS:
        raise BadValue(f"kind must be one of {', '.join(KINDS)}", "kind")
    for name in ("thumb", "rating", "text"):
        needs = name == NEEDED.get(given.kind)
        if (getattr(given, name) is not None) != needs:
            raise BadValue(f"feedback of kind {given.kind} {'needs' if needs else 'has no'} {name}", name)
    if given.other_words is not None and given.kind != "correction":
        raise BadValue(f"feedback of kind {given.kind} has no other_words", "other_words")
    if given.thumb is not None and (type(given.thumb) is not int or given.thumb not in (-1, 1)):
        raise BadValue("thumb must be 1 (up) or -1 (down)", "thumb")
    if given.rating is not None and (type(given.rating) is not int or not 1 <= given.rating <= 5):
        raise BadValue("rating must be a whole number from 1 to 5", "rating")
    for name in ("text", "other_words"):
        said = getattr(given, name)
        if said is not None and not check_text(said, name).strip():
            raise BadValue(f"{name} must not be empty", name)


def record_feedback(store: Store, identity: Identity, given: FeedbackIn) -> tuple[FeedbackRow, bool]:
    """The stored row, and whether this call stored it. Durable when this returns; the same call again changes nothing.

    Raises:
        BadValue: it is no feedback of its kind, or a text cannot be stored.
        KeyReused: this identity used the key for other content.
        UnknownAnswer: no such answer was served to this identity.
        NotADraft: a choice, but the answer was the only one.
    """
    check_feedback(given)

    def find_or_add(session: Session) -> tuple[FeedbackRow, bool]:
        own = (FeedbackRow.identity_id == identity.id, FeedbackRow.key == given.key)
        known = session.scalar(select(FeedbackRow).where(*own))
        if known is not None:
            if any(getattr(known, name) != value for name, value in vars(given).items()):
                raise KeyReused("this idempotency key was used for other feedback; use a new one")
            return known, False
        answer = _answer(session, identity, given)
        row = FeedbackRow(
            id=new_id("fb"), identity_id=identity.id, domain=answer.domain, created_at=now(), **vars(given)
        )
        session.add(row)
        return row, True

    return store.write_or_look_again(find_or_add)


def _answer(session: Session, identity: Identity, given: FeedbackIn) -> AnswerRow:
    answer = session.get(AnswerRow, given.answer_id)
    if answer is None or answer.identity_id != identity.id or answer.finish_reason == "error":
        raise UnknownAnswer("no such answer was served to you")
    if given.kind == "choice" and answer.draft_id is None:
        raise NotADraft("this answer was the only one: there was nothing to choose from")
    return answer


def get_feedback(store: Store, feedback_id: str) -> FeedbackRow | None:
    """The row of this id."""
    with store.read() as session:
        return session.scalar(select(FeedbackRow).where(FeedbackRow.id == feedback_id))


def feedback_on(store: Store, *answer_ids: str) -> list[FeedbackRow]:
    """Everything said about these answers, in the order of arrival."""
    with store.read() as session:
        found = select(FeedbackRow).where(FeedbackRow.answer_id.in_(answer_ids))
        return list(session.scalars(found.order_by(FeedbackRow.seq)))


def usage(store: Store, digest: str) -> dict[str, Any]:
    """What users did with a version while it was champion; what was taken back or forgotten counts nowhere.

    `stars` is the mean of `ratings`; `won` are those of `choices` between its drafts and a challenger's, `resolved`
    those of the `judged` conversations (with a thumb, stars or a correction) whose last is a thumb up, or 4 or 5 stars.
    `seconds_50` and `seconds_95`: half of the answers, and 95 of 100, were whole by then; None where no time is known.
    """
    said, n = _said(digest).subquery().c, func.count().filter
    last, judged = said.nth == 1, and_(said.kind.in_(JUDGING), said.turn == 1)
    reacted = {
        "reactions": n(last),
        **{f"{kind}s": n(last, said.kind == kind) for kind in JUDGING},
        "up": n(last, said.thumb == 1),
        "stars": func.avg(said.rating, type_=Float).filter(last),
        "choices": n(last, said.kind == "choice", or_(said.lost, said.won)),
        "won": n(last, said.kind == "choice", said.won),
        "judged": n(judged),
        "resolved": n(judged, or_(said.thumb == 1, said.rating >= 4)),
    }
    mine = (AnswerRow.digest == digest, AnswerRow.who != "challenger", AnswerRow.finish_reason != "error")
    served = select(func.count().label("answers"), func.count(AnswerRow.identity_id.distinct()).label("people"))
    reactions = select(*(column.label(name) for name, column in reacted.items()))
    took = AnswerRow.latency_ms
    ranked = select(took).where(*mine, took.is_not(None), AnswerRow.finish_reason != "cancelled").order_by(took)
    with store.read() as session:
        found = {**session.execute(served.where(*mine)).mappings().one(), **session.execute(reactions).mappings().one()}
        timed = session.scalar(select(func.count()).select_from(ranked.subquery())) or 0
        for share in (50, 95):  # nearest rank, as not every database knows percentiles
            slow = session.scalar(ranked.offset(max(math.ceil(timed * share / 100), 1) - 1).limit(1))
            found[f"seconds_{share}"] = slow and slow / 1000
        return found


def _said(digest: str) -> Select[Any]:
    """Reactions to a champion: `nth` 1 is the last of a kind to an answer or draft, `turn` 1 in a conversation."""
    row, answer, other = FeedbackRow, AnswerRow, aliased(AnswerRow)  # the other of a draft
    challenger, choice = answer.who == "challenger", row.kind == "choice"
    about, newest = case((choice, answer.draft_id), else_=answer.id), row.seq.desc()
    talk = answer.conversation_id, row.kind.in_(JUDGING)
    return (
        select(
            *(row.kind, row.thumb, row.rating, challenger.label("lost"), (other.who == "challenger").label("won")),
            func.row_number().over(partition_by=(row.kind, about), order_by=newest).label("nth"),
            func.row_number().over(partition_by=talk, order_by=newest).label("turn"),
        )
        .join(answer, answer.id == row.answer_id)
        .outerjoin(other, and_(other.draft_id == answer.draft_id, other.id != answer.id))
        .where(row.withdrawn_at.is_(None))
        .where(case((challenger, and_(choice, other.digest == digest)), else_=answer.digest == digest))
    )
