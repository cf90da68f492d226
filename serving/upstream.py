"""The engine's stream, read as cheaply as Python allows: one aiohttp session, one parse for each piece that arrives.

What arrives in one read becomes one piece: when the gateway is behind, pieces grow and the cost of each token falls.
Speaks OpenAI's streaming form only, which vLLM, transformers and others share.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from serving.errors import ServiceError

_CONNECT_SECONDS = 5.0


@dataclass(slots=True)
class Piece:
    """What one read of the engine's stream brought."""

    text: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def engine_away() -> ServiceError:
    """The refusal while the engine cannot be reached."""
    return ServiceError(503, "engine_unavailable", "the engine is away; it is being started again", retry_after=5)


def engine_lost() -> ServiceError:
    """The end of an answer that the engine did not finish."""
    return ServiceError(503, "engine_failed", "the engine broke off this answer; ask again", retry_after=5)


class Upstream:
    """A pool of connections to the engine. `url` ends in /v1."""

    def __init__(self, url: str, key: str | None, timeout_seconds: float) -> None:
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._headers = {"content-type": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=_CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session; connections come with the requests."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, headers=self._headers, trust_env=False
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, body: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send a streaming request; returns when the engine has accepted it.

        Raises:
            ServiceError: 503 the engine is away or busy, or lacks the model; 400 it refuses the request.
        """
        if self._session is None:
            raise engine_away()
        content = orjson.dumps(body)
        for attempt in (1, 2):
            try:
                reply = await self._session.post(self._url, data=content)
                break
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if attempt == 2:  # the first time it may be a connection of an engine that has gone since
                    raise engine_away() from None
            except (TimeoutError, aiohttp.ClientError):
                raise engine_away() from None
        if reply.status == 200:
            return reply
        reply.close()
        # The engine's own words stay here: they may hold paths.
        if reply.status in (400, 422):
            raise ServiceError(400, "refused_by_engine", "the engine refuses this request: check its parameters")
        raise engine_away()


async def pieces(reply: aiohttp.ClientResponse) -> AsyncIterator[Piece]:
    """The engine's stream, one Piece for each read that brought something.

    Raises:
        ServiceError: 503, the engine broke off or took too long.
    """
    rest = b""
    try:
        while True:
            block = await reply.content.readany()
            if not block:
                return
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            piece, ended = _read(lines)
            if piece is not None:
                yield piece
            if ended:
                return
    except TimeoutError:
        raise ServiceError(
            503, "answer_timeout", "the answer took too long; ask for fewer tokens", retry_after=5
        ) from None
    except (aiohttp.ClientError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        raise engine_lost() from None


def _read(lines: list[bytes]) -> tuple[Piece | None, bool]:
    """What these whole lines say together, and whether the stream ended with them."""
    piece, found = Piece(), False
    for line in lines:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return (piece if found else None), True
        found = _add(piece, orjson.loads(data)) or found
    return (piece if found else None), False


def _add(piece: Piece, event: dict[str, Any]) -> bool:
    if "error" in event:
        raise KeyError("error")
    found = False
    if choices := event.get("choices"):
        choice = choices[0]
        if text := (choice.get("delta") or {}).get("content"):
            piece.text += text
            found = True
        if reason := choice.get("finish_reason"):
            piece.finish_reason = reason
            found = True
    if usage := event.get("usage"):
        piece.prompt_tokens, piece.completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        found = True
    return found
