"""Two versions item by item, for a reader: in sentences, and as a page without a script whose texts are escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any

from tasks.evaluate.card.card import forest, templates
from tasks.evaluate.versions import COUNTED, Comparison, Difference, Pair
from tasks.text.grounding import UNSPACED
from tasks.text.passages import cited

Pieces = list[tuple[str, bool]]

PIECE = re.compile(rf"[^\W{UNSPACED}]+|\s+|.", re.DOTALL)  # a word; of writing without spaces, a character
SHORT = 3  # words that two texts share between differences, and fewer, are chance
DIGEST = 64  # characters


def render_versions(
    title: str, found: Comparison, before: Mapping[str, str], after: Mapping[str, str], most: int
) -> str:
    """The page; `before` and `after` say what A and B are (`name`, `about`).

    Of each set and metric it has the `most` items that lost most, and as many that gained.
    """
    own = {"marked": marked, "places": places, "cited": cited, "notices": notices(found), "summary": summary(found)}
    page = templates().get_template("versions.html")
    return page.render(title=title, found=found, a=before, b=after, most=most, **own)


def notices(found: Comparison) -> list[str]:
    """What a reader has to know before anything else."""
    differ = "; ".join(f"{key}: {_short(old)} in A, {_short(new)} in B" for key, (old, new) in found.differing.items())
    return [
        f"Evaluated under different conditions ({differ}): there are no intervals of what depends on these, and of "
        "items only what is seen in their answers. A release measures its candidate and the champion alike."
    ][: bool(differ)]


def summary(found: Comparison) -> list[str]:
    """Right answers, and unanswerable questions declined, in a sentence each."""
    totals = {
        words: [
            sum(row) for row in zip(*((r.n, r.before, r.after, len(r.lost), len(r.won)) for r in rows), strict=True)
        ]
        for at, words in COUNTED.items()
        if (rows := found.categories.get(" ".join(at)))
    }
    return [
        f"{words}: {old} of {n} in A, {new} in B ({lost} lost, {won} won)"
        for words, (n, old, new, lost, won) in totals.items()
    ]


def _short(value: Any) -> str:
    """A condition for people: of a digest the beginning."""
    return str(value)[:12] if isinstance(value, str) and len(value) == DIGEST else str(value)


def marked(before: str, after: str) -> tuple[Pieces, Pieces]:
    """Two texts in pieces, each with whether the other text lacks it."""
    old, new = PIECE.findall(before), PIECE.findall(after)
    sides: tuple[Pieces, Pieces] = ([], [])
    for tag, i, j, k, end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        inside = i > 0 and k > 0 and j < len(old) and end < len(new)
        chance = inside and sum(piece.isalnum() for piece in old[i:j]) < SHORT
        for side, pieces in zip(sides, (old[i:j], new[k:end]), strict=True):
            side += [(piece, tag != "equal" or chance) for piece in pieces]
    left, right = (
        [("".join(text for text, _ in run), new) for new, run in groupby(side, lambda one: one[1])] for side in sides
    )
    return left, right


def places(row: Difference) -> dict[str, float]:
    """Where a difference lies on its line, better to the right."""
    way, change = 1 if row.higher_is_better else -1, row.change
    return forest(way * change.low, way * change.estimate, way * change.high, row.margin or 0.0)


def worst(found: Comparison, most: int) -> list[tuple[str, Pair]]:
    """The items that lost most, each once, by the first "set metric" in which it lost: right answers come first."""
    rows: dict[str, tuple[str, Pair]] = {}
    for column in found.columns:
        for key in column.lost:
            rows.setdefault(key, (f"{column.set} {column.metric}", found.items[key]))
    return list(rows.values())[:most]
