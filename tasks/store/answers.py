"""Conversations, and the answers that were served in them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tasks.store.columns import storable
from tasks.store.errors import AnswerExists, BadValue, NotYours, UnknownConversation, UnknownIdentity
from tasks.store.identities import Identity
from tasks.store.schema import FINISH_REASONS, HOW, WHO, AnswerTable, ConversationTable, DraftTable
from tasks.store.store import Store, new_id, now


@dataclass(frozen=True)
class AnswerRecord:
    """One served completion. `messages` is the whole prompt; times are in milliseconds."""

    id: str
    conversation_id: str
    identity_id: str
    domain: str
    messages: list[dict[str, Any]]
    text: str
    version: str
    digest: str
    prompt_sha256: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token_ms: float | None
    latency_ms: float | None
    draft_id: str | None
    position: int | None
    who: str
    created_at: datetime


def _record(row: AnswerTable) -> AnswerRecord:
    return AnswerRecord(**{field.name: getattr(row, field.name) for field in fields(AnswerRecord)})


def ensure_conversation(store: Store, conversation_id: str | None, identity: Identity, domain: str) -> str:
    """The conversation's id, checked to be this identity's; without one, a new conversation.

    Raises:
        UnknownConversation: there is none of this id in this domain.
        NotYours: it is another identity's.
        UnknownIdentity: the identity was forgotten meanwhile.
    """
    if conversation_id is None:
        made = ConversationTable(id=new_id("conv"), identity_id=identity.id, domain=domain, created_at=now())
        try:
            with store.write() as session:
                session.add(made)
        except IntegrityError:
            raise UnknownIdentity("this identity is no longer there") from None
        return made.id
    with store.read() as session:
        row = session.get(ConversationTable, conversation_id)
    if row is None or row.domain != domain:
        raise UnknownConversation("there is no such conversation")
    if row.identity_id != identity.id:
        raise NotYours("this conversation is another identity's")
    return row.id


def open_draft(store: Store, conversation_id: str, how: str) -> str:
    """The id of a new pair of drafts; `how` says where the second comes from: sample or challenger.

    Raises:
        UnknownConversation: there is no such conversation.
    """
    if how not in HOW:
        raise BadValue(f"a draft comes from one of {', '.join(HOW)}, not {how!r}")
    row = DraftTable(id=new_id("draft"), conversation_id=conversation_id, how=how, created_at=now())
    try:
        with store.write() as session:
            session.add(row)
    except IntegrityError:
        raise UnknownConversation("there is no such conversation") from None
    return row.id


def record_answer(store: Store, answer: AnswerRecord) -> None:
    """Store an answer; durable when this returns. The same one again is no change, so a lost reply may be retried.

    What a model wrote is stored with U+FFFD for characters that cannot be stored; a prompt with them is refused.

    Raises:
        UnknownConversation, NotYours: the conversation or draft is not there, or not this identity's.
        AnswerExists: another answer has this id, or this place in the draft.
        BadValue: a value that cannot be stored.
    """
    _check_words(answer)
    wanted = asdict(answer) | {"text": storable(answer.text)}
    try:
        with store.write() as session:
            conversation = session.get(ConversationTable, answer.conversation_id)
            if conversation is None or conversation.domain != answer.domain:
                raise UnknownConversation("there is no such conversation")
            if conversation.identity_id != answer.identity_id:
                raise NotYours("this conversation is another identity's")
            draft = session.get(DraftTable, answer.draft_id) if answer.draft_id is not None else None
            if answer.draft_id is not None and (draft is None or draft.conversation_id != conversation.id):
                raise UnknownConversation("there is no such draft in this conversation")
            session.add(AnswerTable(**wanted))
    except IntegrityError:
        if get_answer(store, answer.id) != AnswerRecord(**wanted):
            raise AnswerExists("another answer has this id, or this place in the draft") from None


def _check_words(answer: AnswerRecord) -> None:
    if answer.finish_reason not in FINISH_REASONS:
        raise BadValue(f"finish_reason {answer.finish_reason!r} is none of {', '.join(FINISH_REASONS)}")
    if answer.who not in WHO:
        raise BadValue(f"who {answer.who!r} is none of {', '.join(WHO)}")
    if (answer.draft_id is None) != (answer.position is None) or answer.position not in (None, 0, 1):
        raise BadValue("an answer of a draft has position 0 or 1; any other has none")


def get_answer(store: Store, answer_id: str) -> AnswerRecord | None:
    """The answer of this id, whoever it was served to."""
    with store.read() as session:
        row = session.get(AnswerTable, answer_id)
        return _record(row) if row is not None else None


def answers_of(store: Store, conversation_id: str) -> list[AnswerRecord]:
    """The answers that were served in a conversation, in order."""
    with store.read() as session:
        found = select(AnswerTable).where(AnswerTable.conversation_id == conversation_id)
        return [_record(row) for row in session.scalars(found.order_by(AnswerTable.created_at, AnswerTable.id))]
