"""The gateway without HTTP: its parts, their beginning and end, and what is read and written for people.

Needs a started store, engine client and follower (see `start`); lives on one event loop, in one process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from serving.auth import Authenticator
from serving.errors import ServiceError
from serving.follower import Follower, Traffic
from serving.limits import Limits
from serving.monitoring import Metrics
from serving.settings import GatewaySettings
from serving.storage import Storage
from serving.upstream import Upstream
from tasks.core import layout
from tasks.core.files import verify_manifest
from tasks.store.answers import FeedbackIn, answers_of, ensure_conversation, feedback_on, get_answer, record_feedback
from tasks.store.memory import REVIEWERS, accept, withdraw
from tasks.store.schema import AnswerRow, FeedbackRow, Identity
from tasks.store.store import Store
from tasks.text.prompts import PromptBook, smuggled_markers


class ChatService:
    """One gateway, for one domain. Answers are given by serving/answering.py."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.domain)
        self.traffic = Traffic()
        self.limits = Limits(settings.serving)
        self.prompts = PromptBook(settings.root / layout.BASE_MODEL)
        self.storage = Storage(settings)
        self.auth = Authenticator(settings, self.storage)
        self.upstream = Upstream(settings.engine_url, settings.engine_key, settings.serving.timeout_seconds)
        self.follower: Follower | None = None
        self._background: set[asyncio.Task[None]] = set()

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what must be done although its request is gone; `stop` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def start(self) -> None:
        """Open the store, connect to the engine and begin to follow the registry.

        Raises:
            ManifestError: the base model is not whole.
            StoreError: the database cannot be reached or is not migrated.
        """
        base = await asyncio.to_thread(verify_manifest, self.settings.root / layout.BASE_MODEL)
        await self.storage.open()
        await asyncio.to_thread(self.prompts.warm)
        await self.upstream.open()
        self.follower = Follower(self.settings, self.storage.store, self.traffic, self.metrics, self.prompts, base)
        self.follower.start()

    async def stop(self) -> None:
        """Stop following, close the engine's connections and the store."""
        if self.follower is not None:
            await asyncio.to_thread(self.follower.stop)
        if self._background:
            await asyncio.wait(self._background, timeout=10)
        await self.upstream.close()
        await self.storage.close()

    async def find_conversation(self, conversation_id: str | None, identity: Identity) -> str:
        """The conversation's id, checked to be this identity's; a new one for None.

        Raises:
            ServiceError: 404, whether there is none or it is another's.
        """
        return await self.storage.call(ensure_conversation, conversation_id, identity, self.settings.domain)

    async def give_feedback(self, identity: Identity, given: FeedbackIn) -> tuple[FeedbackRow, bool]:
        """Store one reaction, and whether it is new; the same key with the same content gives the row that is there.

        Raises:
            ServiceError: 404 unknown answer, 409 key used for something else, 400 not a draft or role markers, 429.
        """
        self.limits.take("feedback posts", identity.id)
        for name in ("text", "other_words"):
            if found := smuggled_markers(self.prompts, getattr(given, name) or ""):
                raise ServiceError(400, "role_marker", f"{name} holds the role marker {found[0]}", param=name)
        row, new = await self.storage.call(record_feedback, identity, given)
        if new:
            self.metrics.feedback.labels(kind=given.kind).inc()
        return row, new

    async def take_back(self, identity: Identity, feedback_id: str) -> FeedbackRow:
        """Withdraw a reaction: one's own, or anybody's for the roles review and admin. Again is no change.

        Raises:
            ServiceError: 404, whether there is none or it is another's; 429.
        """
        self.limits.take("feedback posts", identity.id)
        return await self.storage.call(withdraw, feedback_id, identity)

    async def accept(self, identity: Identity, feedback_id: str) -> FeedbackRow:
        """Let a correction count for everybody, as review or admin. Again is no change.

        Raises:
            ServiceError: 403 another role, 404 unknown, 400 no correction or taken back, 429.
        """
        self.limits.take("feedback posts", identity.id)
        if identity.role not in REVIEWERS:
            raise ServiceError(403, "role_needed", "only the roles review and admin may accept a correction")
        return await self.storage.call(accept, feedback_id, identity.name)

    async def find_answer(self, identity: Identity, answer_id: str) -> AnswerRow:
        """A served answer: one's own, or anybody's for the roles review and admin.

        Raises:
            ServiceError: 404, whether there is none or it is another's.
        """
        self.limits.take("requests", identity.id)
        record = await self.storage.call(get_answer, answer_id)
        allowed = record is not None and (record.identity_id == identity.id or identity.role in REVIEWERS)
        if record is None or not allowed:
            raise ServiceError(404, "unknown_answer", "no answer of yours has this id", param="answer_id")
        return record

    async def read_conversation(
        self, identity: Identity, conversation_id: str
    ) -> tuple[list[AnswerRow], list[FeedbackRow]]:
        """The answers of one's own conversation, in order, and what was said about them and not taken back.

        Raises:
            ServiceError: 404, whether there is none or it is another's.
        """

        def read(store: Store) -> tuple[list[AnswerRow], list[FeedbackRow]]:
            answers = answers_of(store, conversation_id)
            said = feedback_on(store, *(answer.id for answer in answers))
            return answers, [row for row in said if row.withdrawn_at is None]

        self.limits.take("requests", identity.id)
        await self.find_conversation(conversation_id, identity)
        return await self.storage.call(read)

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests can be answered now, and what is not as it should be."""
        traffic, problems = self.traffic, dict(self.traffic.problems)
        ready = traffic.champion is not None and traffic.engine_up and "store" not in problems
        champion, challenger = traffic.champion, traffic.challenger
        detail = {
            "ready": ready,
            "version": champion.version if champion else None,
            "digest": champion.digest if champion else None,
            "challenger": challenger.version if challenger else None,
            "problems": problems,
        }
        return ready, detail
