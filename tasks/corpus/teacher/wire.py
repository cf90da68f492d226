"""One request to an OpenAI-compatible endpoint, and what is made of whatever comes back.

The public `openai` client does the retries: time-outs, broken connections, 408, 409, 429 and server errors, with
growing pauses and Retry-After honoured up to two minutes. What fails for good is a Reply with `error`; what can never
work is an error for a person.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from tasks.core.errors import FlywheelError
from tasks.core.params import TeacherParams
from tasks.core.processes import is_local
from tasks.corpus.teacher.cache import Ask, Reply
from tasks.text.markup import THINKS, THOUGHT

# Seconds: the longest pause that the client makes between two tries because a server asks for it.
LONGEST_PAUSE = 120.0
# What an unknown tokenizer makes of a text, in bytes a token, where a server does not say.
BYTES_A_TOKEN = 3
FINISHES = ("stop", "length", "content_filter")
Finish = Literal["stop", "length", "content_filter", ""]


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
    """Connections to one endpoint; used in one event loop, and closed there."""

    def __init__(self, endpoint: Endpoint, settings: TeacherParams) -> None:
        import openai

        self.endpoint = endpoint
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

        Raises:
            TeacherError: the endpoint refuses the key, the model or the route.
        """
        import openai

        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [message.model_dump() for message in ask.messages],
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            # Servers that know it give a reply that was lost on its way again without a charge.
            "extra_headers": {"Idempotency-Key": key},
        }
        try:
            async with asyncio.timeout(self._longest):
                return read_reply(await self._client.chat.completions.create(**body), ask)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise TeacherError(
                f"the teacher at {self.endpoint.url} refuses model {self.endpoint.model!r}: {_cause(error)}; see "
                "construct.teacher in params.yaml, and FLYWHEEL_TEACHER_KEY in the environment"
            ) from None
        except (openai.OpenAIError, TimeoutError, ValueError) as error:
            return Reply(error=_cause(error))


def without_thoughts(reply: Reply) -> Reply:
    """A reply as of where a reasoning model's last thought ends; its beginning may stand in the prompt.

    A thought that does not end leaves no answer: the reply becomes a failed one.
    """
    text = THOUGHT.sub("", reply.text)
    if opened := THINKS.search(text):
        cause = f"{opened.group()} without an end: only thoughts came; raise construct.teacher.max_tokens"
        return reply.model_copy(update={"text": "", "error": reply.error or cause})
    return reply.model_copy(update={"text": text.strip()}) if text != reply.text else reply


def read_reply(completion: Any, ask: Ask) -> Reply:
    """A chat completion as a Reply; what a server leaves out is estimated (tokens) or empty.

    Raises:
        ValueError: it is not a chat completion.
    """
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
    said = getattr(usage, name, None)
    return said if isinstance(said, int) and said >= 0 else -(-len(text.encode(errors="replace")) // BYTES_A_TOKEN)


def _cause(error: Exception) -> str:
    """What went wrong, in one line."""
    status = getattr(error, "status_code", None)
    return f"{type(error).__name__}{f' ({status})' if status else ''}: {' '.join(str(error).split())[:200]}"
