"""The card of one night: what was said, what became of it, and why the night ended as it did. No stage's output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.files import write_text

if TYPE_CHECKING:
    from tasks.store.schema import Night

NIGHTS = layout.HOME / "nights"
WORDS = {
    "promote": "a new version is champion",
    "hold": "a new version was held back",
    "reject": "a new version was rejected",
    "skip": "no release was worth it",
    "nothing": "there was nothing to do",
    "failed": "it failed",
}
FACTS = {
    "examples": "Corrections in the snapshot",
    "new_examples": "New to the champion",
    "preferences": "Preference pairs",
    "signals": "Thumbs, stars and comments kept for later",
}


def render_night(night: Night, facts: dict[str, Any], wanted: int) -> str:
    """The card as Markdown; `facts` are those that stage feedback wrote, as far as the night came."""
    ended = WORDS.get(night.outcome or "", "it is not finished")
    closed = night.closed_at.strftime("%Y-%m-%d %H:%M UTC") if night.closed_at else "not yet"
    rows = [
        ("Began", night.started_at.strftime("%Y-%m-%d %H:%M UTC")),
        ("Ended", closed),
        ("Reactions claimed this night", night.rows),
        ("New corrections that a release needs", wanted),
        ("Snapshot", (night.snapshot or "none")[:12]),
        ("Version", night.version or "none"),
    ]
    rows += [(title, facts[key]) for key, title in FACTS.items() if key in facts]
    lines = [f"# Night {night.number} of {night.domain}: {ended}", "", night.reason, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows]
    for title, counts in (("Dropped in cleaning", facts.get("dropped")), ("Personal data masked", facts.get("masked"))):
        if counts:
            lines += ["", f"## {title}", "", *(f"- {name}: {count}" for name, count in counts.items())]
    return "\n".join(lines) + "\n"


def write_night(home: Path, number: int, text: str) -> Path:
    """Keep a night's card under .flywheel/nights; returns its path."""
    path = home / NIGHTS / f"{number:05d}.md"
    write_text(path, text)
    return path
