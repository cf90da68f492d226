"""What a teacher has answered, kept by content, so that nothing is paid twice.

One file a reply, named by the SHA-256 of all that decides it: who answers, the messages, the settings and the number
of the sample. It is renamed into place before the reply is used: after a kill at any moment only what was under way is
asked again. A file that is damaged counts as absent.
"""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import ValidationError

from tasks.core.files import digest_of
from tasks.core.records import Message, Record


class Ask(Record):
    """One request: chat messages, the most tokens of the answer, how it is drawn.

    `sample` tells apart several answers to the same messages.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float
    sample: int = 0


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
        return digest_of({"model": self.identity, "ask": ask.model_dump(mode="json")})

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
        """Keep a reply, whole or not at all.

        Without waiting for the disk: a kill loses nothing, and a power cut only the last moments' replies.
        """
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(reply.model_dump_json(), encoding="utf-8")
        temporary.replace(path)
