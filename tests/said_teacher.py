"""A teacher without a server: it says what the test wants, and keeps what it was asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tasks.core.params import load_params
from tasks.corpus.construct.method import Method
from tasks.corpus.teacher.teacher import Ask, Reply, Usage


class SaidTeacher:
    """`say` gets the last message. After `limit` requests the budget is spent."""

    def __init__(self, say: Callable[[str], str | Reply], limit: int = 10_000) -> None:
        self.say, self.limit = say, limit
        self.asks: list[Ask] = []
        self.exhausted = False

    @property
    def usage(self) -> Usage:
        return Usage(len(self.asks), len(self.asks), 0, 0)

    def ask(self, asks: Sequence[Ask], title: str = "") -> list[Reply]:
        self.asks += asks
        self.exhausted = len(self.asks) >= self.limit
        said = [self.say(ask.messages[-1].content) for ask in asks]
        return [text if isinstance(text, Reply) else Reply(text=text, finish_reason="stop") for text in said]

    def asked(self, part: str) -> list[str]:
        """The last messages of the requests that hold this text."""
        return [ask.messages[-1].content for ask in self.asks if part in ask.messages[-1].content]


def said_items(*items: tuple[str, ...], fields: tuple[str, ...] = ("question", "answer")) -> str:
    """A reply that lists these items."""
    return json.dumps({"items": [dict(zip(fields, item, strict=True)) for item in items]}, ensure_ascii=False)


M = TypeVar("M", bound=Method)

cached_params = cache(load_params)


def at_work(kind: type[M], root: Path, teacher: Any = None, language: str = "en", seed: int = 1, **changes: Any) -> M:
    """A method of construction, with changes to its section of params.yaml."""
    params = cached_params(root / "params.yaml")
    section = getattr(params.construct_, kind.origin).model_copy(update=changes)
    construct = params.construct_.model_copy(update={kind.origin: section})
    title = {"title": "Building"} if kind.origin == "self_instruct" else {}
    params = params.model_copy(update={"construct_": construct, "seed": seed})
    return kind(params=params, language=language, teacher=teacher, **title)
