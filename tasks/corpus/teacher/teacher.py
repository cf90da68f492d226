"""The teacher: a model behind an OpenAI-compatible endpoint that writes instruction data, whole replies only.

Each request is asked once for good: replies are kept by content, so a kill costs what was under way. What
fails for good is a Reply with `error`; an endpoint that cannot work is an error for a person. A request is let through
when all before it and the most it can cost stay within the budget; replies from the cache count like fresh ones, so
that neither cache nor order changes what is built. The local engine starts at the first reply that is not in the cache.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, verify_manifest
from tasks.core.params import EngineParams, Params, TeacherParams
from tasks.core.processes import free_port, is_local
from tasks.core.records import Message, Record
from tasks.engine.client import BASE
from tasks.engine.process import EngineProcess
from tasks.text.markup import THINKS, THOUGHT

BUDGET_SPENT = "the teacher's budget is spent"
FAILURES = 16  # in a row, at least, after which an endpoint is taken to be down; more where more is asked at once
MILLION = 1_000_000
# Tokens that a server may put around the messages: its template, and a system prompt of its own.
TEMPLATE_TOKENS, MESSAGE_TOKENS = 64, 8
LONGEST_PAUSE = 120.0  # seconds between two tries, where a server asks for it
BYTES_A_TOKEN = 3  # what an unknown tokenizer makes of a text, where a server does not say
FINISHES = ("stop", "length", "content_filter")
Finish = Literal["stop", "length", "content_filter", ""]


class Ask(Record):
    """One request: messages, the most tokens, how it is drawn; `sample` tells apart answers to the same messages.

    With `fields` the reply is JSON: a list "items" of objects with these texts, in this order.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    sample: int = 0
    fields: tuple[str, ...] = ()

    @property
    def form(self) -> dict[str, Any]:
        """The JSON schema of the reply, in the strict form that OpenAI and vLLM hold a model to."""
        item = _object({name: {"type": "string"} for name in self.fields})
        return _object({"items": {"type": "array", "items": item}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


class Usage(NamedTuple):
    """Requests, how many of them were answered, and what they cost when they were asked, now or for an earlier run."""

    requests: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def plus(self, *others: Usage) -> Usage:
        """All together."""
        return Usage(*map(sum, zip(self, *others, strict=True)))

    def since(self, before: Usage) -> Usage:
        """What has come to it since then."""
        return Usage(*map(operator.sub, self, before))


class Reply(Record):
    """One answer. `error` says why there is none; `tokens` are what it cost when it was asked, cached or not."""

    text: str = ""
    finish_reason: Literal["stop", "length", "content_filter", ""] = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None

    @property
    def cost(self) -> Usage:
        """The tokens alone."""
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.completion_tokens)


def dialogue(*texts: str) -> tuple[Message, ...]:
    """Messages of a user and an assistant in turn, the user's first and last: examples shown, then the question."""
    return tuple(Message(role="assistant" if number % 2 else "user", content=text) for number, text in enumerate(texts))


class ReplyCache:
    """Replies by key, as JSON files below `folder`; `identity` says which model answers."""

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self.folder = folder
        self.identity = identity

    def key(self, ask: Ask) -> str:
        """The SHA-256 of everything that decides the reply."""
        plain = None if ask.fields else {"fields"}  # which then has the key that it always had
        return digest_of({"model": self.identity, "ask": ask.model_dump(mode="json", exclude=plain)})

    def path(self, key: str) -> Path:
        """Where the reply with this key lies."""
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Reply | None:
        """The reply, or None where there is none that can be read."""
        try:
            return Reply.model_validate_json(self.path(key).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply, whole or not at all; the disk is not waited for: a power cut loses only the last moments'."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(reply.model_dump_json(), encoding="utf-8")
        temporary.replace(path)


class TeacherError(FlywheelError):
    """The teacher cannot be asked at all."""


@dataclass(frozen=True)
class Endpoint:
    """Where a teacher listens. `log`: a file that says more where it fails, for one of our own.

    No seed is sent to either kind: some hosted ones refuse the field, and vLLM 0.32 on a processor ends with an error
    ("CPU Generator does not use offset") when a seeded prompt is longer than one step. The cache makes replies lasting.
    """

    url: str
    model: str
    key: str = ""
    log: str = ""


class Connection:
    """Connections to one endpoint, in one event loop; what fails for good is a Reply with `error`.

    The public `openai` client tries again: time-outs, broken connections, 408, 409, 429 and server errors.
    """

    def __init__(self, endpoint: Endpoint, settings: TeacherParams) -> None:
        import openai

        self.endpoint = endpoint
        self._plain = False  # whether it has refused to hold a reply to a form
        # With every pause and every try at its longest: a reply that drips in for ever ends too.
        self._longest = (settings.retries + 1) * (settings.timeout_seconds + LONGEST_PAUSE)
        near = is_local(urlsplit(endpoint.url).hostname)
        self._client = openai.AsyncOpenAI(
            base_url=endpoint.url,
            api_key=endpoint.key or "EMPTY",
            timeout=settings.timeout_seconds,
            max_retries=settings.retries,
            # An engine next door is not reached through anybody's proxy.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=not near),
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def fetch(self, key: str, ask: Ask) -> Reply:
        """One reply; `key` tells tries of one request from other requests.

        Raises TeacherError: the endpoint refuses the key, the model or the route.
        """
        import openai

        try:
            async with asyncio.timeout(self._longest):
                return read_reply(await self._complete(key, ask), ask)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise TeacherError(
                f"the teacher at {self.endpoint.url} refuses model {self.endpoint.model!r}: {_cause(error)}; see "
                "construct.teacher in params.yaml, and FLYWHEEL_TEACHER_KEY in the environment"
            ) from None
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            return Reply(error=_cause(error))

    async def _complete(self, key: str, ask: Ask) -> Any:
        """A completion in the form that is asked for; plain, from then on, where the endpoint answers only without."""
        import openai

        if not ask.fields or self._plain:
            return await self._create(key, ask)
        form = {"type": "json_schema", "json_schema": {"name": "items", "strict": True, "schema": ask.form}}
        try:
            return await self._create(key, ask, response_format=form)
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            refusal = _cause(error)
        completion = await self._create(f"{key}-plain", ask)
        if not self._plain:
            print(f"teacher: asked without response_format, which the endpoint refuses: {refusal}", file=sys.stderr)
        self._plain = True
        return completion

    async def _create(self, key: str, ask: Ask, **form: Any) -> Any:
        return await self._client.chat.completions.create(
            model=self.endpoint.model,
            messages=cast(Any, [message.model_dump() for message in ask.messages]),
            max_tokens=ask.max_tokens,
            temperature=ask.temperature,
            # Servers that know it give a reply that was lost on its way again without a charge.
            extra_headers={"Idempotency-Key": key},
            **form,
        )


def without_thoughts(reply: Reply) -> Reply:
    """A reply as of where its last thought ends (a prompt may begin it); one of a thought without an end has failed."""
    text = THOUGHT.sub("", reply.text)
    if opened := THINKS.search(text):
        cause = f"{opened.group()} without an end: only thoughts came; raise construct.teacher.max_tokens"
        return reply.model_copy(update={"text": "", "error": reply.error or cause})
    return reply.model_copy(update={"text": text.strip()}) if text != reply.text else reply


def read_reply(completion: Any, ask: Ask) -> Reply:
    """A chat completion as a Reply, tokens estimated where a server leaves them out; raises ValueError for another."""
    try:
        choice, usage = completion.choices[0], getattr(completion, "usage", None)
        message, finish = choice.message, choice.finish_reason
        text, declined = message.content or "", getattr(message, "refusal", None) or ""
    except (AttributeError, IndexError, TypeError):
        raise ValueError("the reply is not a chat completion") from None
    if not isinstance(text, str) or not isinstance(declined, str):
        raise ValueError("the reply holds no text")
    if declined and not text:
        text, finish = declined, "content_filter"
    return Reply(
        # Without half characters (lone surrogates), which no file can hold.
        text=text.encode("utf-8", errors="replace").decode("utf-8"),
        finish_reason=cast(Finish, finish if finish in FINISHES else ""),
        prompt_tokens=_tokens(usage, "prompt_tokens", "".join(message.content for message in ask.messages)),
        completion_tokens=_tokens(usage, "completion_tokens", text),
    )


def _tokens(usage: Any, name: str, text: str) -> int:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count >= 0 else -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN)


def _cause(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__}{f' ({status})' if status else ''}: {' '.join(str(error).split())[:200]}"


def most_of(ask: Ask) -> Usage:
    """The most a request can cost: no tokenizer makes more tokens of a text than it has bytes."""
    text = sum(len(message.content.encode()) + MESSAGE_TOKENS for message in ask.messages)
    text += len(json.dumps(ask.form)) if ask.fields else 0  # some servers show it to the model
    return Usage(prompt_tokens=text + TEMPLATE_TOKENS, completion_tokens=ask.max_tokens)


@dataclass
class _Round:
    """The requests of one call: what is under way with the most that it can cost, and the replies so far, by key."""

    title: str
    total: int
    running: dict[asyncio.Task[Reply], tuple[str, Usage]] = field(default_factory=dict)
    replies: dict[str, Reply] = field(default_factory=dict)

    def add(self, key: str, reply: Reply) -> None:
        """Note a reply, and tell how far it is at every tenth part."""
        self.replies[key] = reply
        done = len(self.replies)
        if done * 10 // self.total > (done - 1) * 10 // self.total:
            print(f"{self.title}: {done} of {self.total}", file=sys.stderr, flush=True)


class Teacher(ExitStack):
    """Asks one model, as a `with` block; `serve` gives the endpoint, at the first reply that is not cached."""

    def __init__(
        self, settings: TeacherParams, cache: ReplyCache, serve: Callable[[], AbstractContextManager[Endpoint]]
    ) -> None:
        super().__init__()
        self.usage = Usage()  # the same in a rerun that finds every reply in the cache
        self.exhausted = False
        # What was asked now, and what the cache spared: for people, never for a stage's output.
        self.counts: Counter[str] = Counter()
        self.paid = Usage()
        self._settings, self._cache, self._serve = settings, cache, serve
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

        Raises TeacherError: the endpoint refuses the key, the model or the route, or does not answer; EngineError: the
        local engine could not be started.
        """
        keys = [self._cache.key(ask) for ask in asks]
        raw = self._runner.run(self._answer(dict(zip(keys, asks, strict=True)), title))
        replies = {key: without_thoughts(reply) for key, reply in raw.items()}
        answered = sum(replies[key].error is None for key in keys)
        self.usage = self.usage.plus(Usage(len(asks), answered))
        return [replies[key] for key in keys]

    async def _answer(self, wanted: dict[str, Ask], title: str) -> dict[str, Reply]:
        now = _Round(title, len(wanted))
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
            now.add(key, Reply(error=BUDGET_SPENT))
        elif (known := self._cache.get(key)) is not None:
            self.counts["cached"] += 1
            now.add(key, self._take(key, known))
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
        settings = self._settings
        while not self.exhausted:
            planned = self.usage.plus(most_of(ask), *(most for _, most in now.running.values()))
            asked, answered = planned.prompt_tokens, planned.completion_tokens
            cost = (asked * settings.price_input + answered * settings.price_output) / MILLION
            if asked + answered <= settings.budget_tokens and cost <= (settings.budget_cost or cost):
                return True
            if not now.running:
                return False
            await self._gather(now)
        return False

    async def _gather(self, now: _Round) -> None:
        done, _ = await asyncio.wait(now.running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            key, _ = now.running.pop(task)
            now.add(key, self._take(key, task.result()))

    def _take(self, key: str, reply: Reply) -> Reply:
        """Count a reply once, paid for now or earlier; raises TeacherError for too many failures in a row."""
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
        self.counts["asked"] += 1
        reply = await connection.fetch(key, ask)
        if reply.error is None:
            self._cache.put(key, reply)
            self.paid = self.paid.plus(reply.cost)
        else:
            self.counts["failed"] += 1
        return reply


def open_teacher(params: Params, home: Path = Path()) -> Teacher:
    """The teacher that params.yaml names, below `home`; raises ManifestError where its base model is not whole."""
    settings = params.construct_.teacher
    folder = home / layout.TEACHER_CACHE
    if settings.kind == "url":
        cache = ReplyCache(folder, {"url": settings.url, "model": settings.model})
        key = os.environ.get("FLYWHEEL_TEACHER_KEY", "")
        return Teacher(settings, cache, lambda: nullcontext(Endpoint(settings.url, settings.model, key)))
    base_model = home / layout.BASE_MODEL
    cache = ReplyCache(folder, {"base_model": verify_manifest(base_model)})
    return Teacher(settings, cache, lambda: local_engine(params.engine, base_model, home))


@contextmanager
def local_engine(settings: EngineParams, base_model: Path, home: Path) -> Iterator[Endpoint]:
    """An engine of our own on the base model, on a free port: the platform's may be serving on its own.

    Raises TeacherError: engine.kind is `url`, so that there is nothing to start; EngineError: it could not be started.
    """
    if settings.kind == "url":
        raise TeacherError(
            "construct.teacher.kind is local, but engine.kind is url: name that endpoint in construct.teacher"
        )
    print("teacher: starting the local engine", file=sys.stderr, flush=True)
    with EngineProcess(settings, base_model, home, port=free_port(), name="teacher") as engine:
        yield Endpoint(f"{engine.url}/v1", BASE, os.environ.get("FLYWHEEL_ENGINE_KEY", ""), str(engine.log))
