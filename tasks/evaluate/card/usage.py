"""What users did with the champion and with the version before, as the cards show it."""

from __future__ import annotations

from typing import Any

from tasks.core import layout
from tasks.core.intervals import share_below

USAGE = layout.REPORTS / "usage.json"
RESOLVED = "conversations resolved: of those with thumb, stars or correction, the last is a thumb up or 4 or 5 stars"
SHARES = {
    "thumbs up": ("up", "thumbs"),
    "answers corrected": ("corrections", "answers"),
    "drafts won against a challenger": ("won", "choices"),
    RESOLVED: ("resolved", "judged"),
}


def share(count: int, n: int) -> str:
    """`count` of `n` with Clopper and Pearson's interval."""
    low, high = 1 - share_below(n - count, n, 0.95), share_below(count, n, 0.95)
    return f"{count} of {n}: {count / n:.0%} ({low:.0%} to {high:.0%})" if n else "–"


def usage_rows(usage: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """A table, its head first, with a column for each version; [] without any."""
    seconds = "seconds to a whole answer: of half, of 95 in 100"
    columns = [("shares with a 95% interval", "answers served", seconds, "reactions", "stars, mean", *SHARES)]
    for name, one in usage.items():
        head = f"version {one['version']} ({name})", f"{one['answers']} to {one['people']} identities"
        took = "–" if one["seconds_50"] is None else f"{one['seconds_50']:.1f}, {one['seconds_95']:.1f}"
        stars = f"{one['stars']:.1f} of {one['ratings']}" if one["ratings"] else "–"
        shares = [share(one[part], one[whole]) for part, whole in SHARES.values()]
        columns.append((*head, took, str(one["reactions"] or "nobody has reacted yet"), stars, *shares))
    return list(zip(*columns, strict=True)) if usage else []


def usage_section(rows: list[tuple[str, ...]]) -> list[str]:
    """The same as lines of Markdown; [] without any."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return ["", "## What users did", "", lines[0], "|---" * len(rows[0]) + "|", *lines[1:]] if rows else []
