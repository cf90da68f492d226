"""One example, of which a test says only what matters to it."""

from __future__ import annotations

from typing import Any

from tasks.core.records import Example, make_example


def an_example(question: str = "Q", answer: str = "A", **fields: Any) -> Example:
    given = {"language": "en", "origin": "human", "source": ("t",)} | fields
    return make_example(instruction=question, output=answer, **given)
