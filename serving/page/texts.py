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
    """The first of the browser's languages that is one of ours, else English. Browsers name the wanted ones first."""
    wanted = (part.strip().lower()[:2] for part in accept_language.split(",")[:32])
    return next((language for language in wanted if language in table()["languages"]), "en")
