"""The teacher: a model behind an OpenAI-compatible endpoint that writes instruction data.

Many requests at once, each asked at most once for good: replies are kept by content (cache.py), so that a kill at any
moment costs at most what was under way. A request that fails for good gives a Reply with `error`; an endpoint that
cannot work, or fails many times in a row, is an error for a person. The local engine is started only when a reply is
not in the cache. Limits: whole replies only, no streaming, no tools.

A request is let through when everything before it, as it really was, and the most it can cost itself stay within the
limits of params.yaml. Replies from the cache count like fresh ones: the limit is on what a run uses, so neither the
cache nor the order in which replies arrive changes what is built. What a rerun pays is less.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core import layout
from tasks.core.files import verify_manifest
from tasks.core.params import EngineParams, Params, TeacherParams
from tasks.core.processes import free_port
from tasks.corpus.teacher.cache import Ask, Reply, ReplyCache, Usage
from tasks.corpus.teacher.progress import progress
from tasks.corpus.teacher.wire import Connection, Endpoint, TeacherError, without_thoughts
from tasks.engine.client import BASE
from tasks.engine.process import EngineProcess

BUDGET_SPENT = "the teacher's budget is spent"
# Failures in a row, at least, after which an endpoint is taken to be down; more where more is asked at once.
FAILURES = 16
MILLION = 1_000_000
# Tokens that a server may put around the messages: its template, and a system prompt of its own.
TEMPLATE_TOKENS = 64
MESSAGE_TOKENS = 8


def most_of(ask: Ask) -> Usage:
    """The most a request can cost: no tokenizer makes more tokens of a text than it has bytes."""
    text = sum(len(message.content.encode()) + MESSAGE_TOKENS for message in ask.messages)
    return Usage(prompt_tokens=text + TEMPLATE_TOKENS, completion_tokens=ask.max_tokens)


def within_budget(usage: Usage, settings: TeacherParams) -> bool:
    """Whether so much may be spent in all, in tokens and in money; prices are a million tokens."""
    tokens = usage.prompt_tokens + usage.completion_tokens
    cost = (usage.prompt_tokens * settings.price_input + usage.completion_tokens * settings.price_output) / MILLION
    return tokens <= settings.budget_tokens and (not settings.budget_cost or cost <= settings.budget_cost)


@dataclass
class _Round:
    """The requests of one call: what is under way with the most that it can cost, and the replies so far, by key."""

    tick: Callable[[], None]
    running: dict[asyncio.Task[Reply], tuple[str, Usage]] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)


class Teacher(ExitStack):
    """Asks one model; use as a `with` block, which closes connections and ends the engine if it started one.

    Args:
        settings: params.construct.teacher.
        cache: where replies are kept.
        serve: makes the endpoint available as long as a block; entered at the first reply that is not in the cache.
    """

    def __init__(
        self, settings: TeacherParams, cache: ReplyCache, serve: Callable[[], AbstractContextManager[Endpoint]]
    ) -> None:
        super().__init__()
        self.usage = Usage()  # the same in a rerun that finds every reply in the cache
        self.exhausted = False
        # What was asked now, and what the cache spared: for people, never for a stage's output.
        self.counts: Counter[str] = Counter()
        self.paid = Usage()
        self._settings = settings
        self._cache = cache
        self._serve = serve
        self._runner = self.enter_context(asyncio.Runner())
        self._connected: Connection | None = None
        self._charged: set[str] = set()
        self._failures = 0  # in a row

    def __str__(self) -> str:
        """For a log: what was asked now, and what the cache spared."""
        return (
            f"{self.counts['asked']} asked now ({self.counts['failed']} failed), {self.counts['cached']} from the "
            f"cache; {self.paid.prompt_tokens} tokens asked and {self.paid.completion_tokens} answered now"
        )

    def ask(self, asks: Sequence[Ask], title: str = "teacher") -> list[Reply]:
        """The replies without thoughts, in the order of the requests; equal requests are asked once.

        Raises:
            TeacherError: the endpoint refuses the key, the model or the route, or does not answer.
            EngineError: the local engine could not be started.
        """
        keys = [self._cache.key(ask) for ask in asks]
        raw = self._runner.run(self._answer(dict(zip(keys, asks, strict=True)), title))
        replies = {key: without_thoughts(reply) for key, reply in raw.items()}
        answered = sum(replies[key].error is None for key in keys)
        self.usage = self.usage.plus(Usage(len(asks), answered))
        return [replies[key] for key in keys]

    async def _answer(self, wanted: dict[str, Ask], title: str) -> dict[str, Reply]:
        """Start requests in order, as the budget and the number at once allow; gather replies by key."""
        with progress(title, len(wanted)) as tick:
            now = _Round(tick)
            try:
                for key, ask in wanted.items():
                    await self._start(now, key, ask)
                while now.running:
                    await self._gather(now)
            finally:
                for task in now.running:  # after an error nothing goes on behind it
                    task.cancel()
                await asyncio.gather(*now.running, return_exceptions=True)
        self._check_alive(now.replies)
        return now.replies

    async def _start(self, now: _Round, key: str, ask: Ask) -> None:
        if not await self._admitted(now, key, ask):
            self.exhausted = True
            now.replies[key] = Reply(error=BUDGET_SPENT)
            now.tick()
        elif (known := self._cache.get(key)) is not None:
            self.counts["cached"] += 1
            now.replies[key] = self._take(key, known)
            now.tick()
        else:
            while len(now.running) >= self._settings.concurrency:
                await self._gather(now)
            task = asyncio.create_task(self._fetch(self._connection(), key, ask))
            now.running[task] = (key, most_of(ask))

    async def _admitted(self, now: _Round, key: str, ask: Ask) -> bool:
        """Whether the budget allows a request; where that hangs on those under way, they are waited for.

        After the first that it does not allow, no other is let through, so that what is built ends at one place.
        """
        if key in self._charged:
            return True
        while not self.exhausted:
            planned = self.usage.plus(most_of(ask), *(most for _, most in now.running.values()))
            if within_budget(planned, self._settings):
                return True
            if not now.running:
                return False
            await self._gather(now)
        return False

    async def _gather(self, now: _Round) -> None:
        """Wait for the next replies."""
        done, _ = await asyncio.wait(now.running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            key, _ = now.running.pop(task)
            now.replies[key] = self._take(key, task.result())
            now.tick()

    def _take(self, key: str, reply: Reply) -> Reply:
        """Count a reply, once, whether it is paid for now or was earlier.

        Raises:
            TeacherError: too many failures in a row.
        """
        if reply.error is None:
            if key not in self._charged:
                self.usage = self.usage.plus(reply.cost)
            self._charged.add(key)
            self._failures = 0
            return reply
        self._failures += 1
        if self._failures >= max(FAILURES, 2 * self._settings.concurrency):
            raise self._down(f"failed {self._failures} times in a row, last: {reply.error}")
        return reply

    def _down(self, how: str) -> TeacherError:
        log = self._connected.endpoint.log if self._connected else ""
        see = f"See {log}. " if log else ""
        return TeacherError(f"the teacher {how}. {see}What it answered is kept: once it works, run the stage again")

    def _check_alive(self, replies: dict[str, Reply]) -> None:
        errors = [reply.error for reply in replies.values() if reply.error not in (None, BUDGET_SPENT)]
        if errors and not self._charged:
            raise self._down(f"answered none of {len(errors)} requests, last: {errors[-1]}")

    def _connection(self) -> Connection:
        """Made at the first request that has to be asked; nothing is under way then, so it may take its time."""
        if self._connected is None:
            self._connected = Connection(self.enter_context(self._serve()), self._settings)
            self.callback(lambda close: self._runner.run(close()), self._connected.close)
        return self._connected

    async def _fetch(self, connection: Connection, key: str, ask: Ask) -> Reply:
        """Ask for one reply and keep it before anything else happens."""
        self.counts["asked"] += 1
        reply = await connection.fetch(key, ask)
        if reply.error is None:
            self._cache.put(key, reply)
            self.paid = self.paid.plus(reply.cost)
        else:
            self.counts["failed"] += 1
        return reply


def open_teacher(params: Params, home: Path = Path()) -> Teacher:
    """The teacher that params.yaml names; `home` is the repository root.

    Raises:
        ManifestError: the teacher is the base model, and that is missing or not whole.
    """
    settings = params.construct_.teacher
    folder = home / layout.TEACHER_CACHE
    if settings.kind == "url":
        cache = ReplyCache(folder, {"url": settings.url, "model": settings.model})
        return Teacher(settings, cache, lambda: elsewhere(settings))
    base_model = home / layout.BASE_MODEL
    cache = ReplyCache(folder, {"base_model": verify_manifest(base_model)})
    return Teacher(settings, cache, lambda: local_engine(params.engine, base_model, home))


@contextmanager
def elsewhere(settings: TeacherParams) -> Iterator[Endpoint]:
    """An endpoint that somebody else runs; the key comes from the environment."""
    yield Endpoint(settings.url, settings.model, os.environ.get("FLYWHEEL_TEACHER_KEY", ""))


@contextmanager
def local_engine(settings: EngineParams, base_model: Path, home: Path) -> Iterator[Endpoint]:
    """An engine of our own on the base model, on a free port: the platform's may be serving on its own.

    Raises:
        TeacherError: engine.kind is `url`, so that there is nothing to start.
        EngineError: it could not be started.
    """
    if settings.kind == "url":
        raise TeacherError(
            "construct.teacher.kind is local, but engine.kind is url: name that endpoint in construct.teacher"
        )
    print("teacher: starting the local engine", file=sys.stderr, flush=True)
    with EngineProcess(settings, base_model, home, port=free_port(), name="teacher") as engine:
        yield Endpoint(f"{engine.url}/v1", BASE, os.environ.get("FLYWHEEL_ENGINE_KEY", ""), str(engine.log))
