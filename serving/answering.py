"""Answers on their way: who gives one, and from the engine's first byte to the durable row.

The row is written before `events` ends. Whatever cuts an answer short (the client goes, time is up, the engine
dies, the gateway stops) leaves a row as well, written by a task of its own that no cancellation reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp

from serving.errors import ServiceError
from serving.follower import Served
from serving.passages import annotations_of, left_out, passage_of, source_of, sources_of
from serving.prompt_checks import Prompt, Wanted, checked_prompt, with_passages
from serving.service import ChatService
from serving.upstream import Piece, engine_away, engine_lost, pieces
from tasks.core.clock import now
from tasks.store.answers import open_draft, record_answer
from tasks.store.memory import memory_of
from tasks.store.schema import AnswerRow, Identity

if TYPE_CHECKING:
    from tasks.knowledge.search import Knowledge

SAMPLE_TEMPERATURE = 0.9  # of a second draft that the champion writes
_FINISH = {"stop": "stop", "length": "length", "abort": "error", "error": "error"}


class Answering:
    """An answer being given. Read `events` to the end, which sets `finish`; call `release` in any case."""

    def __init__(
        self, service: ChatService, identity: Identity, wanted: Wanted, served: Served, prompt: Prompt, began: float
    ) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.service, self.identity, self.wanted, self.served, self.prompt = service, identity, wanted, served, prompt
        self.created = now()
        self.conversation = wanted.conversation or ""
        self._began = began
        self._first: float | None = None
        self._texts: list[str] = []
        self._pieces = 0
        self.finish: str | None = None
        self._usage: tuple[int | None, int | None] = (None, None)
        self._recorded = False
        self._reply: aiohttp.ClientResponse | None = None
        self._held = contextlib.ExitStack()
        self._held.enter_context(service.traffic.answering(served))
        self._held.callback(service.limits.free_streams, 1)
        self._held.enter_context(service.metrics.in_flight.track_inprogress())

    async def ask(self, number: int) -> None:
        """Ask the engine for the `number`th answer to this question."""
        self._reply = await self.service.upstream.ask(self._body(number))

    def _body(self, number: int) -> dict[str, Any]:
        """What the engine is asked. Without a temperature the answer is greedy, as it was evaluated."""
        wanted = self.wanted
        body: dict[str, Any] = {
            "model": self.served.model,
            "messages": self.prompt.sent,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": wanted.max_tokens or self.service.settings.serving.max_tokens,
            "temperature": 0.0 if wanted.temperature is None else wanted.temperature,
            **self.service.settings.decoding,
        }
        if wanted.top_p is not None:
            body["top_p"] = wanted.top_p
        if wanted.stop:
            body["stop"] = wanted.stop
        if wanted.seed is not None and self.service.settings.engine.forward_seed:
            # Equal seeds would give n equal answers; engines take no seed of any size, and some none below 0.
            body["seed"] = (wanted.seed + number) % 2**31
        return body

    async def events(self) -> AsyncGenerator[str, None]:
        """The text in pieces; when it ends the answer's row is durable.

        Raises:
            ServiceError: 503, the engine broke off or took too long, or the row could not be stored.
        """
        assert self._reply is not None  # noqa: S101 - whoever reads has asked
        try:
            async for piece in pieces(self._reply):
                self._take(piece)
                if piece.text:
                    yield piece.text
            if self.finish is None or self.finish == "error":
                raise engine_lost()
            await self._record(self.finish)
        except ServiceError:
            await self._record_anyway("error")
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self.service.in_background(self._record_anyway("cancelled"))
            raise
        finally:
            self.release()

    def _take(self, piece: Piece) -> None:
        if self._first is None and piece.text:
            self._first = time.monotonic()
            self.service.metrics.first_token.observe(self._first - self._began)
        if piece.text:
            self._texts.append(piece.text)
            self._pieces += 1
        if piece.finish_reason is not None:
            self.finish = _FINISH.get(piece.finish_reason, "stop")
        if piece.completion_tokens is not None:
            self._usage = (piece.prompt_tokens, piece.completion_tokens)

    def release(self) -> None:
        """Let go of the engine's connection and of the place among the streams. Again is no change.

        An answer that nobody read, and that nothing was recorded of, was not served: it leaves no row.
        """
        if self._reply is not None:
            self._reply.close() if self.finish is None else self._reply.release()
        self._held.close()

    @property
    def text(self) -> str:
        """What was answered so far."""
        return "".join(self._texts)

    @property
    def sources(self) -> list[dict[str, Any]] | None:
        """The passages that the answer was given from; None where nothing was looked up."""
        return sources_of(self.text, self.prompt.passages)

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """Where the answer cites which of its sources."""
        return annotations_of(self.id, self.text, self.prompt.passages)

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens: the engine's count, else ours and one token a piece."""
        prompt, completion = self._usage
        return (self.prompt.tokens if prompt is None else prompt, self._pieces if completion is None else completion)

    async def _record(self, finish: str) -> None:
        self._recorded = True
        prompt, completion = self.tokens
        metrics = self.service.metrics
        metrics.answers.labels(finish_reason=finish).inc()
        metrics.tokens.labels(kind="prompt").inc(prompt)
        metrics.tokens.labels(kind="completion").inc(completion)
        metrics.latency.observe(time.monotonic() - self._began)
        await self.service.storage.call(record_answer, self._row(finish, prompt, completion))

    async def _record_anyway(self, finish: str) -> None:
        """Record what there is of a failed answer; that the store fails as well is not worth a second error."""
        if not self._recorded:
            with contextlib.suppress(Exception):
                await self._record(finish)

    def _row(self, finish: str, prompt: int, completion: int) -> AnswerRow:
        served, wanted = self.served, self.wanted
        return AnswerRow(
            id=self.id,
            conversation_id=self.conversation,
            identity_id=self.identity.id,
            domain=self.service.settings.domain,
            messages=list(self.prompt.messages),
            text=self.text,
            version=served.version,
            digest=served.digest,
            prompt_sha256=self.prompt.sha256,
            finish_reason=finish,
            prompt_tokens=prompt,
            completion_tokens=completion,
            first_token_ms=None if self._first is None else round((self._first - self._began) * 1000, 3),
            latency_ms=round((time.monotonic() - self._began) * 1000, 3),
            draft_id=wanted.draft,
            position=wanted.position,
            who=wanted.who,
            created_at=self.created,
            passages=self.prompt.passages,
        )


def release(answers: list[Answering]) -> None:
    """Let go of all of them."""
    for answer in answers:
        answer.release()


async def begin(service: ChatService, identity: Identity, wanted: Wanted, n: int = 1) -> list[Answering]:
    """Check a request and ask the engine `n` times; each answer's events must then be read to their end or closed.

    Raises:
        ServiceError: it may not be asked (4xx) or cannot be answered now (503). Nothing is held any more then.
    """
    service.limits.take("requests", identity.id)
    served, began = _who_answers(service, wanted.who), time.monotonic()
    prompt = await checked_prompt(service.prompts, service.settings.serving, wanted, served.system)
    with contextlib.ExitStack() as refused:
        service.limits.take_streams(n)
        refused.callback(service.limits.free_streams, n)
        if wanted.conversation is not None:
            await service.find_conversation(wanted.conversation, identity)
        if served.knowledge is not None:
            prompt = await _looked_up(service, identity, prompt, served.knowledge)
        refused.pop_all()
    answers = [Answering(service, identity, wanted, served, prompt, began) for _ in range(n)]
    asking = [asyncio.ensure_future(answer.ask(number)) for number, answer in enumerate(answers)]
    try:
        await asyncio.gather(*asking)
        # The engine is reading the prompt by now, so that writing this row costs no time to the first token.
        conversation = wanted.conversation or await service.find_conversation(None, identity)
        for answer in answers:
            answer.conversation = conversation
    except BaseException:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        release(answers)
        raise
    return answers


async def _looked_up(service: ChatService, identity: Identity, prompt: Prompt, knowledge: Knowledge) -> Prompt:
    """The prompt with what the index and the memory of corrections find for its question."""
    mode, whose = service.settings.serving.memory, identity.id
    memory = await service.storage.call(memory_of, service.settings.domain, whose if mode == "own" else None)
    corrections = [] if mode == "off" else [passage_of(one) for one in memory.corrections]
    with service.metrics.retrieval.time():
        [hits] = await asyncio.to_thread(
            knowledge.search,
            [prompt.messages[-1]["content"]],
            beside=[one for one in corrections if one.text],
            withdrawn={source_of(one) for one in memory.withdrawn} | left_out(knowledge, memory.forgotten),
        )
    most = service.settings.serving.max_prompt_tokens
    return await with_passages(service.prompts, most, prompt, hits, knowledge.settings.words)


async def begin_drafts(service: ChatService, identity: Identity, wanted: Wanted) -> list[Answering]:
    """Two answers for a blind choice, in random order: the champion's, and its challenger's or one that is sampled.

    Raises:
        ServiceError: see `begin`; 404, no conversation of this identity has the id that is wanted.
    """
    conversation = await service.find_conversation(wanted.conversation, identity)
    compared = service.settings.serving.drafts == "challenger" and service.traffic.challenger
    how = "challenger" if compared else "sample"
    draft = await service.storage.call(open_draft, conversation, how)
    begun: list[Answering] = []
    try:
        for position, who in enumerate(random.sample(["champion", how], 2)):
            one = replace(wanted, conversation=conversation, draft=draft, position=position, who=who)
            if who == "sample":
                one = replace(one, temperature=SAMPLE_TEMPERATURE, seed=random.randrange(2**31))
            begun += await begin(service, identity, one)
    except BaseException:
        release(begun)
        raise
    return begun


def _who_answers(service: ChatService, who: str) -> Served:
    served = service.traffic.challenger if who == "challenger" else service.traffic.champion
    if served is None or not service.traffic.engine_up:
        raise engine_away()
    return served
