"""Duplicates and look-alikes planted in a set of known rows, to measure what deduplication finds and what it spares.

tests/data/planted/planted.jsonl is committed: rows of the construction FAQ (Zaragoza AB, CC BY 4.0) and, in Chinese, on
road traffic; of each an exact copy in other clothes (case, width, spaces, full stop), five with letters changed down to
Jaccard 0.8, and a paraphrase written by hand; and questions that differ in a number or a name only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.core.records import Example, make_example
from tasks.similarity.near import normalise

FOLDER = Path(__file__).parent / "data" / "planted"
FILE = FOLDER / "planted.jsonl"
Kind = Literal["base", "exact", "near", "paraphrase", "look-alike"]


class Planted(NamedTuple):
    """One row: what it is, and the number of the base row that it repeats (its own, if it repeats none)."""

    kind: Kind
    of: int
    language: str
    question: str
    answer: str

    def example(self) -> Example:
        """The row as an example."""
        return make_example(
            instruction=self.question, output=self.answer, language=self.language, origin="human", source=("planted",)
        )


def shingles(text: str, size: int) -> frozenset[str]:
    """All runs of `size` characters of the normalised text; a shorter text is one shingle."""
    clean = normalise(text)
    return frozenset(clean[start : start + size] for start in range(max(1, len(clean) - size + 1)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(left & right) / len(left | right)


def read_planted() -> list[Planted]:
    """The committed rows."""
    return [Planted(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]


class Found(NamedTuple):
    """Of the planted copies of one kind: how many there are, how many do not stay beside their base, false drops."""

    planted: int
    found: int
    false: int


def among(rows: list[Planted], kind: Kind) -> list[Planted]:
    """The rows that show how one kind fares: it, its bases and the look-alikes. Other copies could hide a miss."""
    return [row for row in rows if row.kind in ("base", "look-alike", kind)]


def measure(rows: list[Planted], keeper: list[int], kind: Kind) -> Found:
    """What was found of one kind, in what `among` chose; a false drop is a row dropped for one it does not repeat.

    Args:
        rows: base rows, look-alikes and copies of the kind.
        keeper: for each row the one that stays in its place, or -1.
        kind: of the copies.
    """
    base = {row.of: place for place, row in enumerate(rows) if row.kind == "base"}
    copies = [place for place, row in enumerate(rows) if row.kind == kind]
    found = sum(keeper[place] >= 0 or keeper[base[rows[place].of]] >= 0 for place in copies)
    false = sum(place >= 0 and rows[place].of != row.of for row, place in zip(rows, keeper, strict=True))
    return Found(len(copies), found, false)
