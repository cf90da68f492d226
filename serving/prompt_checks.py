"""What a request may ask: roles, markers, lengths. Cheap refusals come before dear ones, tokenising comes last."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from serving.errors import ServiceError
from serving.served import Served
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
    stop: list[str] | None = field(default=None)


@dataclass(frozen=True)
class Prompt:
    """A checked prompt: what the engine is sent, what it renders to, and how long that is."""

    messages: list[dict[str, str]]
    sha256: str
    tokens: int


async def checked_prompt(book: PromptBook, settings: ServingParams, wanted: Wanted, served: Served) -> Prompt:
    """The prompt with the version's own system prompt in front.

    Raises:
        ServiceError: 400, with the parameter and what would be right.
    """
    check_sizes(settings, wanted)
    messages = with_system(wanted.messages, served.system, settings.client_system)
    for number, message in enumerate(wanted.messages):
        check_message(book, number, message)
    try:
        rendered = render(book, messages)
    except PromptError as fault:
        raise ServiceError(400, "refused_by_template", str(fault), param="messages") from None
    least = book.at_least(rendered)
    if least > settings.max_prompt_tokens:
        raise too_long(f"at least {least}", settings.max_prompt_tokens)
    if len(rendered) > INLINE_CHARACTERS:
        tokens = await asyncio.to_thread(book.count, rendered)
    else:
        tokens = book.count(rendered)
    if tokens > settings.max_prompt_tokens:
        raise too_long(str(tokens), settings.max_prompt_tokens)
    return Prompt(messages, prompt_sha256(rendered), tokens)


def too_long(tokens: str, most: int) -> ServiceError:
    """The refusal of a prompt that is too long."""
    message = f"the prompt has {tokens} tokens; at most {most} are read: shorten it, or begin a new conversation"
    return ServiceError(400, "context_length_exceeded", message, param="messages")


def check_sizes(settings: ServingParams, wanted: Wanted) -> None:
    """Refuse what the settings cap, before anything is read."""
    if not 1 <= len(wanted.messages) <= settings.max_messages:
        message = f"a request has 1 to {settings.max_messages} messages, not {len(wanted.messages)}"
        raise ServiceError(400, "too_many_messages", message, param="messages")
    if wanted.max_tokens is not None and not 1 <= wanted.max_tokens <= settings.max_tokens:
        message = f"an answer has 1 to {settings.max_tokens} tokens, not {wanted.max_tokens}"
        raise ServiceError(400, "invalid_value", message, param="max_tokens")
    if wanted.messages[-1].get("role") != "user":
        raise ServiceError(400, "invalid_value", "the last message must be the user's", param="messages")


def check_message(book: PromptBook, number: int, message: dict[str, str]) -> None:
    """Refuse unknown roles, empty and unstorable texts, and texts that forge a role."""
    where, text = f"messages.{number}.content", message.get("content")
    if message.get("role") not in ("system", "user", "assistant"):
        raise _wrong(f"messages.{number}.role", "must be user or assistant")
    if not isinstance(text, str) or not text:
        raise _wrong(where, "must be a text that is not empty")
    if "\x00" in text or not _is_unicode(text):
        raise _wrong(where, "must be valid Unicode without NUL")
    if found := smuggled_markers(book, text):
        raise _wrong(where, f"holds the role marker {found[0]}, which only the template may write", "role_marker")


def _wrong(where: str, what: str, code: str = "invalid_value") -> ServiceError:
    return ServiceError(400, code, f"{where}: {what}", param=where)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_system(messages: list[dict[str, str]], system: str, client_system: str) -> list[dict[str, str]]:
    """The messages behind the version's own system prompt; a client's is refused or appended to it, by setting."""
    theirs = [message for message in messages if message.get("role") == "system"]
    if theirs and client_system == "refuse":
        reason = "this model has its own system prompt; messages may be the user's and the assistant's only"
        raise ServiceError(400, "system_not_allowed", reason, param="messages")
    if theirs and (len(theirs) > 1 or messages[0].get("role") != "system"):
        raise ServiceError(400, "invalid_value", "a system message comes first, and once", param="messages")
    others = [message for message in messages if message.get("role") != "system"]
    parts = [part for part in (system, *(message.get("content", "") for message in theirs)) if part]
    return ([{"role": "system", "content": "\n\n".join(parts)}] if parts else []) + others
