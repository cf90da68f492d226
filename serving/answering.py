"""One answer on its way: from the engine's first byte to the durable row.

The row is written before Done is given out. Whatever cuts an answer short (the client goes, time is up, the engine
dies, the gateway stops) leaves a row as well, written by a task of its own that no cancellation reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from serving.errors import ServiceError
from serving.prompt_checks import Prompt, Wanted
from serving.served import Served
from serving.upstream import Piece, engine_lost, pieces

if TYPE_CHECKING:
    import aiohttp

    from serving.limits import Limits
    from serving.metrics import Metrics
    from serving.served import Traffic
    from serving.settings import GatewaySettings
    from serving.storage import Storage
    from serving.upstream import Upstream
    from tasks.store.identities import Identity

_FINISH = {"stop": "stop", "length": "length", "abort": "error", "error": "error"}


@dataclass(slots=True)
class Delta:
    """A piece of text."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end of an answer whose row is durable."""

    answer_id: str
    conversation_id: str
    version: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class Gateway(Protocol):
    """What an answer needs of the service that gives it."""

    settings: GatewaySettings
    metrics: Metrics
    traffic: Traffic
    limits: Limits
    storage: Storage
    upstream: Upstream

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what must be done although its request is gone."""


class Answering:
    """An answer being given. Read `events` to the end; call `release` in any case."""

    def __init__(
        self, service: Gateway, identity: Identity, wanted: Wanted, served: Served, prompt: Prompt, began: float
    ) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
        self.service, self.identity, self.wanted, self.served, self.prompt = service, identity, wanted, served, prompt
        self.created = datetime.now(UTC)
        self.conversation = wanted.conversation or ""
        self._began = began
        self._first: float | None = None
        self._texts: list[str] = []
        self._pieces = 0
        self._finish: str | None = None
        self._usage: tuple[int | None, int | None] = (None, None)
        self._recorded = False
        self._reply: aiohttp.ClientResponse | None = None
        self._held = contextlib.ExitStack()
        self._held.enter_context(service.traffic.answering(served))
        self._held.callback(service.limits.free_streams, 1)
        self._held.enter_context(service.metrics.in_flight.track_inprogress())

    @classmethod
    async def begin(
        cls, service: Gateway, identity: Identity, wanted: Wanted, served: Served, prompt: Prompt, n: int
    ) -> list[Answering]:
        """Ask the engine `n` times, then open the conversation; the streams taken before are theirs now.

        Raises:
            ServiceError: the engine is away or refuses, or the store is away. Nothing is held any more then.
        """
        began = time.monotonic()
        answers = [cls(service, identity, wanted, served, prompt, began) for _ in range(n)]
        asking = [asyncio.ensure_future(answer._ask(number)) for number, answer in enumerate(answers)]
        try:
            await asyncio.gather(*asking)
            # The engine is reading the prompt by now, so that writing this row costs no time to the first token.
            conversation = wanted.conversation or await service.storage.conversation(None, identity)
            for answer in answers:
                answer.conversation = conversation
        except BaseException:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            for answer in answers:
                answer.release()
            raise
        return answers

    async def _ask(self, number: int) -> None:
        self._reply = await self.service.upstream.ask(self._body(number))

    def _body(self, number: int) -> dict[str, Any]:
        """What the engine is asked. Without a temperature the answer is greedy, as it was evaluated."""
        wanted = self.wanted
        body: dict[str, Any] = {
            "model": self.served.model,
            "messages": self.prompt.messages,
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

    async def events(self) -> AsyncGenerator[Delta | Done, None]:
        """The text in pieces, then Done.

        Raises:
            ServiceError: 503, the engine broke off or took too long, or the row could not be stored.
        """
        if self._reply is None:
            raise RuntimeError("the answer was not begun")
        try:
            async for piece in pieces(self._reply):
                self._take(piece)
                if piece.text:
                    yield Delta(piece.text)
            if self._finish is None or self._finish == "error":
                raise engine_lost()
            await self._record(self._finish)
            yield self._done(self._finish)
        except ServiceError:
            await self._record_anyway("error")
            raise
        except (GeneratorExit, asyncio.CancelledError):
            self._record_detached("cancelled")
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
            self._finish = _FINISH.get(piece.finish_reason, "stop")
        if piece.completion_tokens is not None:
            self._usage = (piece.prompt_tokens, piece.completion_tokens)

    def release(self) -> None:
        """Let go of the engine's connection and of the place among the streams. Again is no change.

        An answer that nobody read, and that nothing was recorded of, was not served: it leaves no row.
        """
        if self._reply is not None:
            self._reply.close() if self._finish is None else self._reply.release()
        self._held.close()

    @property
    def text(self) -> str:
        """What was answered so far."""
        return "".join(self._texts)

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens: the engine's count, else ours and one token a piece."""
        prompt, completion = self._usage
        return (
            self.prompt.tokens if prompt is None else prompt,
            self._pieces if completion is None else completion,
        )

    def _done(self, finish: str) -> Done:
        prompt, completion = self.tokens
        return Done(self.id, self.conversation, self.served.version, finish, prompt, completion)

    async def _record(self, finish: str) -> None:
        self._recorded = True
        prompt, completion = self.tokens
        metrics = self.service.metrics
        metrics.answers.labels(finish_reason=finish).inc()
        metrics.tokens.labels(kind="prompt").inc(prompt)
        metrics.tokens.labels(kind="completion").inc(completion)
        metrics.latency.observe(time.monotonic() - self._began)
        await self.service.storage.record(self._row(finish, prompt, completion))

    async def _record_anyway(self, finish: str) -> None:
        """Record what there is of a failed answer; that the store fails as well is not worth a second error."""
        if not self._recorded:
            with contextlib.suppress(Exception):
                await self._record(finish)

    def _record_detached(self, finish: str) -> None:
        if not self._recorded:
            self.service.in_background(self._record_anyway(finish))

    def _row(self, finish: str, prompt: int, completion: int) -> Any:
        from tasks.store.answers import AnswerRecord

        served, wanted, now = self.served, self.wanted, time.monotonic()
        return AnswerRecord(
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
            latency_ms=round((now - self._began) * 1000, 3),
            draft_id=wanted.draft,
            position=wanted.position,
            who=wanted.who,
            created_at=self.created,
        )
