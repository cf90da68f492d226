"""What a request may ask beside its form (schemas.py): markers, lengths. Cheap refusals first, tokenising last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from serving.errors import ServiceError
from serving.passages import asked_from, kept
from tasks.core.params import ServingParams
from tasks.text.prompts import PromptBook, PromptError, prompt_sha256, render, smuggled_markers

if TYPE_CHECKING:
    from tasks.knowledge.search import Hit
    from tasks.text.passages import AnsweringWords

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
    """A checked prompt: what was asked, what the engine is sent for it, what that renders to, and how long it is.

    `passages` are those in it, as an answer's row keeps them; None where nothing was looked up.
    """

    messages: list[dict[str, str]]
    sent: list[dict[str, str]]
    sha256: str
    tokens: int
    passages: list[dict[str, Any]] | None = None


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
    tokens = await _count(book, rendered)
    if tokens > settings.max_prompt_tokens:
        raise _too_long(str(tokens), settings.max_prompt_tokens)
    return Prompt(messages, messages, prompt_sha256(rendered), tokens)


async def with_passages(
    book: PromptBook, most: int, prompt: Prompt, hits: Sequence[Hit], words: AnsweringWords
) -> Prompt:
    """The prompt asked from as many of these passages as `most` tokens hold, from the first on.

    A question that leaves no room for the words around passages either is asked as it is.
    """
    for number in range(len(hits), -1, -1):
        sent = asked_from(prompt.messages, hits[:number], words)
        rendered = render(book, sent)
        tokens = await _count(book, rendered)
        if tokens <= most:
            found = kept(hits[:number])
            return replace(prompt, sent=sent, sha256=prompt_sha256(rendered), tokens=tokens, passages=found)
    return prompt


async def _count(book: PromptBook, rendered: str) -> int:
    slow = len(rendered) > INLINE_CHARACTERS
    return await asyncio.to_thread(book.count, rendered) if slow else book.count(rendered)


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
