"""Answers as OpenAI's server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import anyio
import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.answering import Answering
from serving.errors import ServiceError

# Over the time for the answer itself: for a client that reads slowly.
SLOW_READER_SECONDS = 15.0
DONE = b"data: [DONE]\n\n"


class Chunks:
    """Renders the chunks of one choice; a `blind` one does not say which version wrote it."""

    def __init__(self, answer: Answering, model: str, response_id: str, index: int, blind: bool = False) -> None:
        self._head = {
            "id": response_id,
            "object": "chat.completion.chunk",
            "created": int(answer.created.timestamp()),
            "model": model,
            "conversation_id": answer.conversation,
        }
        if not blind:
            self._head["version"] = answer.served.version
        self._blind = blind
        self._choice = {"index": index, "answer_id": answer.id, "logprobs": None}

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        """A piece of the answer, or with `finish` its end: then the answer's row is durable."""
        return event(self._head | {"choices": [self._choice | {"delta": delta, "finish_reason": finish} | more]})

    def end(self, answer: Answering) -> bytes:
        """The last chunk, with the answer's sources; a blind one has none, since versions may know different ones."""
        if self._blind or answer.sources is None:
            return self.chunk({}, answer.finish)
        return self.chunk({"annotations": answer.annotations}, answer.finish, sources=answer.sources)

    def usage(self, answers: list[Answering]) -> bytes:
        """The chunk after all choices, where the client asked for it."""
        return event(self._head | {"choices": [], "usage": usage_of(answers)})


def usage_of(answers: list[Answering]) -> dict[str, int]:
    """The tokens of the prompt, which is read once, and of all answers to it."""
    prompt, completion = answers[0].tokens[0], sum(answer.tokens[1] for answer in answers)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def event(content: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"


async def one(answer: Answering, chunks: Chunks) -> AsyncGenerator[bytes, None]:
    """The chunks of one answer."""
    async with aclosing(answer.events()) as events:
        async for text in events:
            yield chunks.chunk({"content": text})
    yield chunks.end(answer)


async def merged(streams: list[AsyncGenerator[bytes, None]]) -> AsyncGenerator[bytes, None]:
    """Several streams as one, in the order in which things arrive.

    Raises:
        ServiceError: one of them failed; the others are broken off.
    """
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue(64)

    async def drain(stream: AsyncGenerator[bytes, None]) -> None:
        try:
            async for item in stream:
                await queue.put(item)
            await queue.put(None)
        except ServiceError as error:
            await queue.put(error)

    tasks = [asyncio.ensure_future(drain(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            item = await queue.get()
            if item is None:
                left -= 1
            elif isinstance(item, Exception):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def stream_of(
    answers: list[Answering], model: str, usage: bool, blind: bool = False
) -> AsyncGenerator[bytes, None]:
    """A whole reply.

    What fails after it began becomes an event with an error, since the status is sent already.
    """
    every = [Chunks(answer, model, answers[0].id, index, blind) for index, answer in enumerate(answers)]
    try:
        yield b"".join(chunks.chunk({"role": "assistant", "content": ""}) for chunks in every)
        streams = [one(answer, chunks) for answer, chunks in zip(answers, every, strict=True)]
        async with aclosing(streams[0] if len(streams) == 1 else merged(streams)) as items:
            async for item in items:
                yield item
        if usage:
            yield every[0].usage(answers)
        yield DONE
    except ServiceError as error:
        yield event(error.body())


class EventStream(StreamingResponse):
    """A reply that ends its source when the client goes away or reads too slowly."""

    def __init__(
        self, source: AsyncGenerator[bytes, None], headers: dict[str, str], seconds: float, ended: Callable[[], None]
    ) -> None:
        super().__init__(source, headers={"cache-control": "no-store", **headers}, media_type="text/event-stream")
        self._source, self._seconds, self._ended = source, seconds + SLOW_READER_SECONDS, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop where the client does."""
        try:
            with anyio.move_on_after(self._seconds):
                await super().__call__(scope, receive, send)
        finally:
            await self._source.aclose()
            self._ended()  # a source that was closed before its first step has not run its own end


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
