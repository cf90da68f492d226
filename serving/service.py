"""The gateway without HTTP: who may ask what, which version answers, and what is written down.

An answer's row is durable before the client is told that the answer is complete; an answer that was cut short by the
client, by time or by the engine has a row too, with finish_reason "cancelled" or "error".
Needs a started store, engine client and follower (see `start`); lives on one event loop, in one process.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serving.answering import Answering
from serving.auth import Authenticator
from serving.errors import ServiceError
from serving.limits import Limits
from serving.metrics import Metrics
from serving.prompt_checks import Wanted, checked_prompt
from serving.served import Served, Traffic
from serving.settings import GatewaySettings
from serving.storage import Storage
from serving.upstream import Upstream, engine_away
from tasks.core import layout
from tasks.text.prompts import PromptBook, smuggled_markers

if TYPE_CHECKING:
    from serving.follower import Follower
    from tasks.store.answers import AnswerRecord
    from tasks.store.feedback import FeedbackIn, FeedbackRow
    from tasks.store.identities import Identity

SAMPLE_TEMPERATURE = 0.9  # of a second draft that the champion writes


class ChatService:
    """Answers, feedback and drafts, for one domain."""

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
            StoreError: the database cannot be reached or is not migrated.
        """
        from serving.follower import Follower

        await self.storage.open()
        await asyncio.to_thread(self.prompts.warm)
        await self.upstream.open()
        self.follower = Follower(self.settings, self.storage.store, self.traffic, self.metrics)
        self.follower.start()

    async def stop(self) -> None:
        """Stop following, close the engine's connections and the store."""
        if self.follower is not None:
            await asyncio.to_thread(self.follower.stop)
        if self._background:
            await asyncio.wait(self._background, timeout=10)
        await self.upstream.close()
        await self.storage.close()

    def served(self) -> Served | None:
        """The version that answers now; None until one was verified."""
        return self.traffic.champion

    def challenger(self) -> Served | None:
        """The version that is compared blind with the champion, where params.serving.drafts says so."""
        return self.traffic.challenger

    async def answer(self, identity: Identity, wanted: Wanted) -> Answering:
        """Check a request and begin to answer it; the answer's events must then be read to their end or closed.

        Raises:
            ServiceError: it may not be asked (4xx) or cannot be answered now (503).
        """
        return (await self.answers(identity, wanted, 1))[0]

    async def answers(self, identity: Identity, wanted: Wanted, n: int) -> list[Answering]:
        """Like `answer`, for `n` answers to the same question, each with an id and a row of its own."""
        self.limits.request(identity.id)
        served = self._who_answers(wanted.who)
        prompt = await checked_prompt(self.prompts, self.settings.serving, wanted, served)
        self.limits.take_streams(n)
        taken = n
        try:
            if wanted.conversation is not None:
                await self.storage.conversation(wanted.conversation, identity)
            taken = 0  # they are the answers' now
            return await Answering.begin(self, identity, wanted, served, prompt, n)
        finally:
            self.limits.free_streams(taken)

    async def drafts(self, identity: Identity, wanted: Wanted) -> list[Answering]:
        """Two answers for a blind choice, in random order: the champion's, and its challenger's or one that is sampled.

        Raises:
            ServiceError: see `answers`; 404, no conversation of this identity has the id that is wanted.
        """
        conversation = await self.storage.conversation(wanted.conversation, identity)
        how = "challenger" if self.settings.serving.drafts == "challenger" and self.traffic.challenger else "sample"
        draft = await self.storage.open_draft(conversation, how)
        begun: list[Answering] = []
        try:
            for position, who in enumerate(random.sample(["champion", how], 2)):
                one = replace(wanted, conversation=conversation, draft=draft, position=position, who=who)
                if who == "sample":
                    one = replace(one, temperature=SAMPLE_TEMPERATURE, seed=random.randrange(2**31))
                begun.append(await self.answer(identity, one))
        except BaseException:
            for answering in begun:
                answering.release()
            raise
        return begun

    async def give_feedback(self, identity: Identity, given: FeedbackIn) -> tuple[FeedbackRow, bool]:
        """Store one reaction, and whether it is new; the same key with the same content gives the row that is there.

        Raises:
            ServiceError: 404 unknown answer, 409 key used for something else, 400 not a draft or role markers, 429.
        """
        self.limits.feedback(identity.id)
        if given.text and (found := smuggled_markers(self.prompts, given.text)):
            raise ServiceError(400, "role_marker", f"text holds the role marker {found[0]}", param="text")
        row, new = await self.storage.feedback(identity, given)
        if new:
            self.metrics.feedback.labels(kind=given.kind).inc()
        return row, new

    async def find_answer(self, identity: Identity, answer_id: str) -> AnswerRecord:
        """A served answer: one's own, or anybody's for the roles review and admin.

        Raises:
            ServiceError: 404, whether there is none or it is another's.
        """
        self.limits.request(identity.id)
        record = await self.storage.answer(answer_id)
        allowed = record is not None and (record.identity_id == identity.id or identity.role in ("review", "admin"))
        if record is None or not allowed:
            raise ServiceError(404, "unknown_answer", "no answer of yours has this id", param="answer_id")
        return record

    async def find_conversation(
        self, identity: Identity, conversation: str
    ) -> list[tuple[AnswerRecord, list[FeedbackRow]]]:
        """The answers of one's own conversation, in order, each with what was said about it.

        Raises:
            ServiceError: 404, whether there is none or it is another's.
        """
        self.limits.request(identity.id)
        await self.storage.conversation(conversation, identity)
        return await self.storage.conversation_rows(conversation)

    def _who_answers(self, who: str) -> Served:
        if who not in ("champion", "challenger", "sample"):
            raise ServiceError(400, "invalid_value", "who must be champion, challenger or sample", param="who")
        served = self.traffic.challenger if who == "challenger" else self.traffic.champion
        if served is None and who == "challenger":
            raise ServiceError(404, "no_challenger", "there is no challenger now")
        if served is None or not self.traffic.engine_up:
            raise engine_away()
        return served

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
