"""Answers as OpenAI's server-sent events. What does not change within a stream is rendered once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serving.answering import Answering, Delta, Done
from serving.errors import ServiceError

# Over the time for the answer itself: for a client that reads slowly.
SLOW_READER_SECONDS = 15.0
DONE = b"data: [DONE]\n\n"


class Chunks:
    """Renders the chunks of one choice."""

    def __init__(self, answer: Answering, model: str, response_id: str, index: int, blind: bool = False) -> None:
        head = {
            "id": response_id,
            "object": "chat.completion.chunk",
            "created": int(answer.created.timestamp()),
            "model": model,
            "conversation_id": answer.conversation,
        }
        if not blind:
            head["version"] = answer.served.version
        self._head = b"data: " + orjson.dumps(head)[:-1]
        self._choice = b'"index":' + str(index).encode() + b',"answer_id":"' + answer.id.encode() + b'","logprobs":null'

    def _chunk(self, delta: bytes, finish: bytes) -> bytes:
        choice = b'{%b,"delta":%b,"finish_reason":%b}' % (self._choice, delta, finish)
        return b'%b,"choices":[%b]}\n\n' % (self._head, choice)

    def first(self) -> bytes:
        """The chunk that says who speaks."""
        return self._chunk(b'{"role":"assistant","content":""}', b"null")

    def text(self, text: str) -> bytes:
        """A chunk of text."""
        return self._chunk(b'{"content":%b}' % orjson.dumps(text), b"null")

    def last(self, done: Done) -> bytes:
        """The final chunk of this choice; the answer's row is durable."""
        return self._chunk(b"{}", orjson.dumps(done.finish_reason))

    def usage(self, prompt: int, completion: int) -> bytes:
        """The chunk after all choices, where the client asked for it."""
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return b'%b,"choices":[],"usage":%b}\n\n' % (self._head, orjson.dumps(usage))


async def one(answer: Answering, chunks: Chunks) -> AsyncGenerator[bytes | Done, None]:
    """The chunks of one answer; its Done in between, for the count of tokens."""
    async with aclosing(answer.events()) as events:
        async for event in events:
            if isinstance(event, Delta):
                yield chunks.text(event.text)
            else:
                yield chunks.last(event)
                yield event


async def merged(streams: list[AsyncGenerator[bytes | Done, None]]) -> AsyncGenerator[bytes | Done, None]:
    """Several streams as one, in the order in which things arrive.

    Raises:
        ServiceError: one of them failed; the others are broken off.
    """
    queue: asyncio.Queue[bytes | Done | Exception | None] = asyncio.Queue(64)

    async def drain(stream: AsyncGenerator[bytes | Done, None]) -> None:
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
    """A whole reply; a `blind` one does not say which version wrote what.

    What fails after it began becomes an event with an error, since the status is sent already.
    """
    every = [Chunks(answer, model, answers[0].id, index, blind) for index, answer in enumerate(answers)]
    done: list[Done] = []
    try:
        yield b"".join(chunks.first() for chunks in every)
        streams = [one(answer, chunks) for answer, chunks in zip(answers, every, strict=True)]
        source = streams[0] if len(streams) == 1 else merged(streams)
        async with aclosing(source) as items:
            async for item in items:
                if isinstance(item, Done):
                    done.append(item)
                else:
                    yield item
        if usage:
            yield every[0].usage(done[0].prompt_tokens, sum(one.completion_tokens for one in done))
        yield DONE
    except ServiceError as error:
        yield b"data: " + orjson.dumps(error.body()) + b"\n\n"


class EventStream(StreamingResponse):
    """A reply that ends its source when the client goes away or reads too slowly."""

    def __init__(
        self, source: AsyncGenerator[bytes, None], headers: dict[str, str], seconds: float, ended: Callable[[], None]
    ) -> None:
        super().__init__(source, headers={"cache-control": "no-store", **headers}, media_type="text/event-stream")
        self._source, self._seconds, self._ended = source, seconds + SLOW_READER_SECONDS, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, or stop where the client does."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(until_gone(receive))
        try:
            await asyncio.wait({sending, leaving}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            self._ended()  # a source that was closed before its first step has not run its own end
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send(self, send: Send) -> None:
        async with aclosing(self._source) as source:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for part in source:
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
