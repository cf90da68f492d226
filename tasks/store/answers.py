"""Conversations, and the answers that were served in them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from tasks.core.clock import now
from tasks.store.columns import storable
from tasks.store.errors import StoreError, UnknownConversation
from tasks.store.identities import Identity
from tasks.store.schema import AnswerRow, ConversationRow, DraftRow
from tasks.store.store import Store, new_id


def ensure_conversation(store: Store, conversation_id: str | None, identity: Identity, domain: str) -> str:
    """The conversation's id, checked to be this identity's; without one, a new conversation.

    Raises:
        UnknownConversation: there is none of this id in this domain, or it is another identity's.
        StoreError: the identity was forgotten meanwhile.
    """
    if conversation_id is None:
        row = ConversationRow(id=new_id("conv"), identity_id=identity.id, domain=domain, created_at=now())
        try:
            with store.write() as session:
                session.add(row)
        except IntegrityError:
            raise StoreError("this identity is no longer there") from None
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
    try:
        with store.write() as session:
            session.add(row)
    except IntegrityError:
        raise UnknownConversation("there is no such conversation") from None
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
