"""The store, for the event loop: every call runs in a thread of a small pool, and every refusal becomes a ServiceError.

What belongs to somebody else and what does not exist get the same 404: nothing is told about other people's rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from serving.errors import ServiceError
from serving.settings import GatewaySettings
from tasks.store import errors
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
        except errors.StoreError as error:
            raise _as_service_error(error) from None


def _as_service_error(error: errors.StoreError) -> Exception:
    match error:
        case errors.UnknownConversation():
            message = "no conversation of yours has this id"
            return ServiceError(404, "unknown_conversation", message, param="conversation_id")
        case errors.UnknownAnswer():
            message = "no answer that was served to you has this id"
            return ServiceError(404, "unknown_answer", message, param="answer_id")
        case errors.UnknownFeedback():
            message = "no feedback of yours has this id"
            return ServiceError(404, "unknown_feedback", message, param="feedback_id")
        case errors.KeyReused():
            return ServiceError(409, "idempotency_key_reused", str(error), param="idempotency_key")
        case errors.NotADraft():
            return ServiceError(400, "not_a_draft", str(error), param="answer_id")
        case errors.BadValue():
            return ServiceError(400, "invalid_value", str(error), param=error.field)
        case errors.StoreUnavailable():
            message = "the database is away or too busy; try again"
            return ServiceError(503, "store_unavailable", message, retry_after=5)
    return error
