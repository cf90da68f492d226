"""The words of the page in every language of it: static/texts.json, which the page's own scripts read too."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

STATIC = Path(__file__).with_name("static")


@cache
def table() -> dict[str, Any]:
    """`languages`, code → name; `texts`, key → code → text."""
    found: dict[str, Any] = json.loads((STATIC / "texts.json").read_text(encoding="utf-8"))
    return found


def text(key: str, language: str) -> str:
    """The text of a key in a language.

    Raises:
        KeyError: no such key or language; both are written in code, so this is a mistake of ours.
    """
    return str(table()["texts"][key][language])


def choose_language(accept_language: str) -> str:
    """The page's language for a browser's Accept-Language header; English where none of ours is wanted."""
    wanted = []
    for position, part in enumerate(accept_language.split(",")[:32]):
        name, _, parameters = part.strip().partition(";")
        language = name.strip().lower().split("-")[0]
        if language in table()["languages"]:
            wanted.append((-_quality(parameters), position, language))
    best = min(wanted, default=(0.0, 0, "en"))
    return best[2] if best[0] < 0 else "en"


def _quality(parameters: str) -> float:
    """The q of one part: 1 where none is given, 0 where it cannot be read."""
    name, _, value = parameters.strip().partition("=")
    if not name:
        return 1.0
    try:
        return min(1.0, max(0.0, float(value))) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0
