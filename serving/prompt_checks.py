"""What a request may ask beside its form (schemas.py): markers, lengths. Cheap refusals first, tokenising last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from serving.errors import ServiceError
from tasks.core.params import ServingParams
from tasks.text.prompts import PromptBook, PromptError, prompt_sha256, render, smuggled_markers

# Above this many characters tokenising takes milliseconds, which other streams should not wait for.
INLINE_CHARACTERS = 8_000


@dataclass(frozen=True)
class Wanted:
    """What is asked: the messages without the domain's system prompt, and how to answer."""

    messages: list[dict[str, str]]
    conversation: str | None = None
    draft: str | None = None
    position: int | None = None
    who: str = "champion"
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = None


@dataclass(frozen=True)
class Prompt:
    """A checked prompt: what the engine is sent, what it renders to, and how long that is."""

    messages: list[dict[str, str]]
    sha256: str
    tokens: int


async def checked_prompt(book: PromptBook, settings: ServingParams, wanted: Wanted, system: str) -> Prompt:
    """The prompt, with the system prompt of the version that answers in front.

    Raises:
        ServiceError: 400, with the parameter and what would be right.
    """
    if len(wanted.messages) > settings.max_messages:
        message = f"a request has 1 to {settings.max_messages} messages, not {len(wanted.messages)}"
        raise ServiceError(400, "too_many_messages", message, param="messages")
    if wanted.max_tokens is not None and wanted.max_tokens > settings.max_tokens:
        message = f"an answer has 1 to {settings.max_tokens} tokens, not {wanted.max_tokens}"
        raise ServiceError(400, "invalid_value", message, param="max_tokens")
    if wanted.messages[-1]["role"] != "user":
        raise ServiceError(400, "invalid_value", "the last message must be the user's", param="messages")
    messages = with_system(wanted.messages, system, settings.client_system)
    for number, one in enumerate(wanted.messages):
        if found := smuggled_markers(book, one["content"]):
            where = f"messages.{number}.content"
            message = f"{where}: holds the role marker {found[0]}, which only the template may write"
            raise ServiceError(400, "role_marker", message, param=where)
    try:
        rendered = render(book, messages)
    except PromptError as fault:
        raise ServiceError(400, "refused_by_template", str(fault), param="messages") from None
    least = book.at_least(rendered)
    if least > settings.max_prompt_tokens:
        raise _too_long(f"at least {least}", settings.max_prompt_tokens)
    slow = len(rendered) > INLINE_CHARACTERS
    tokens = await asyncio.to_thread(book.count, rendered) if slow else book.count(rendered)
    if tokens > settings.max_prompt_tokens:
        raise _too_long(str(tokens), settings.max_prompt_tokens)
    return Prompt(messages, prompt_sha256(rendered), tokens)


def _too_long(tokens: str, most: int) -> ServiceError:
    message = f"the prompt has {tokens} tokens; at most {most} are read: shorten it, or begin a new conversation"
    return ServiceError(400, "context_length_exceeded", message, param="messages")


def with_system(messages: list[dict[str, str]], system: str, client_system: str) -> list[dict[str, str]]:
    """The messages behind the version's own system prompt; a client's is refused or appended to it, by setting."""
    theirs = [message for message in messages if message["role"] == "system"]
    if theirs and client_system == "refuse":
        reason = "this model has its own system prompt; messages may be the user's and the assistant's only"
        raise ServiceError(400, "system_not_allowed", reason, param="messages")
    if theirs and (len(theirs) > 1 or messages[0]["role"] != "system"):
        raise ServiceError(400, "invalid_value", "a system message comes first, and once", param="messages")
    others = [message for message in messages if message["role"] != "system"]
    parts = [part for part in (system, *(message["content"] for message in theirs)) if part]
    return ([{"role": "system", "content": "\n\n".join(parts)}] if parts else []) + others
