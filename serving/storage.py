"""The store, for the event loop: every call runs in a thread of a small pool, and every refusal becomes a ServiceError.

What belongs to somebody else and what does not exist get the same 404: nothing is told about other people's rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from serving.errors import ServiceError
from serving.settings import GatewaySettings

if TYPE_CHECKING:
    from tasks.store.answers import AnswerRecord
    from tasks.store.feedback import FeedbackIn, FeedbackRow
    from tasks.store.identities import Identity
    from tasks.store.store import Store

THREADS = 8
Result = TypeVar("Result")


class Storage:
    """The open store and the threads that wait for it."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The open store; only after `open`."""
        if self._store is None:
            raise ServiceError(503, "store_unavailable", "the store is not open yet", retry_after=5)
        return self._store

    async def open(self) -> None:
        """Open the store.

        Raises:
            StoreError: it cannot be reached, or is not migrated.
        """
        from tasks.store.store import Store

        self._store = await asyncio.to_thread(Store.open, self._settings.database_url, self._settings.root)

    async def close(self) -> None:
        """Wait for what is being written, then close."""
        await asyncio.to_thread(self._pool.shutdown)
        if self._store is not None:
            self._store.close()
        self._store = None

    async def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """`function(store, *arguments)` in a thread; what it refuses comes back as a ServiceError."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, function, self.store, *arguments)
        except Exception as error:
            raise _as_service_error(error) from None

    async def conversation(self, conversation_id: str | None, identity: Identity) -> str:
        """The conversation's id, checked to be this identity's; a new one for None."""
        from tasks.store.answers import ensure_conversation

        return await self.call(ensure_conversation, conversation_id, identity, self._settings.domain)

    async def conversation_rows(self, conversation_id: str) -> list[tuple[AnswerRecord, list[FeedbackRow]]]:
        """The answers of a conversation, in order, each with what was said about it."""
        from tasks.store.answers import answers_of
        from tasks.store.feedback import feedback_on

        def read(store: Store) -> list[tuple[AnswerRecord, list[FeedbackRow]]]:
            return [(answer, feedback_on(store, answer.id)) for answer in answers_of(store, conversation_id)]

        return await self.call(read)

    async def open_draft(self, conversation_id: str, how: str) -> str:
        """The id of a new pair of drafts."""
        from tasks.store.answers import open_draft

        return await self.call(open_draft, conversation_id, how)

    async def record(self, answer: AnswerRecord) -> None:
        """Store an answer; durable when this returns."""
        from tasks.store.answers import record_answer

        await self.call(record_answer, answer)

    async def answer(self, answer_id: str) -> AnswerRecord | None:
        """The answer of this id, whoever it was served to."""
        from tasks.store.answers import get_answer

        return await self.call(get_answer, answer_id)

    async def feedback(self, identity: Identity, given: FeedbackIn) -> tuple[FeedbackRow, bool]:
        """Store one reaction; durable when this returns."""
        from tasks.store.feedback import record_feedback

        return await self.call(record_feedback, identity, given)


def _as_service_error(error: Exception) -> Exception:
    from tasks.store import errors

    if isinstance(error, errors.UnknownConversation | errors.NotYours):
        message = "no conversation of yours has this id"
        return ServiceError(404, "unknown_conversation", message, param="conversation_id")
    if isinstance(error, errors.UnknownAnswer):
        return ServiceError(404, "unknown_answer", "no answer that was served to you has this id", param="answer_id")
    if isinstance(error, errors.KeyReused):
        return ServiceError(409, "idempotency_key_reused", str(error), param="idempotency_key")
    if isinstance(error, errors.NotADraft):
        return ServiceError(400, "not_a_draft", str(error), param="answer_id")
    if isinstance(error, errors.BadValue):
        return ServiceError(400, "invalid_value", str(error))
    if isinstance(error, errors.StoreUnavailable):
        return ServiceError(503, "store_unavailable", "the database is away or too busy; try again", retry_after=5)
    return error
