"""The card of one night: what was said, what became of it, and why the night ended as it did. No stage's output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.files import write_text
from tasks.evaluate.card.card import markdown_cell
from tasks.evaluate.card.usage import usage_rows, usage_section

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
    "renewal": "A renewal",
}
MOST_CORRECTIONS = 5


def render_night(night: Night, facts: dict[str, Any], wanted: int, usage: dict[str, dict[str, Any]]) -> str:
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
    if facts.get("influence"):
        lines += influence_lines(facts["influence"])
    lines += usage_section(usage_rows(usage))
    return "\n".join(lines) + "\n"


def influence_lines(found: dict[str, Any]) -> list[str]:
    """Which training rows pulled at what was lost, for the night's card; text of users as one line without markup."""
    kinds = [f"| {one['name']} | {one['rows']} | {one['influence']:+.3f} |" for one in found["kinds"]]
    people = [f"| {one['identity']} | {one['rows']} | {one['influence']:+.3f} |" for one in found.get("people", [])]
    against = [row for row in found["rows"] if row["kind"] == "correction" and row["influence"] < 0][:MOST_CORRECTIONS]
    return [
        "",
        f"## Which rows pulled at {found['criterion']}",
        "",
        f"Of the {found['answers']} answers that lost most: below 0, training on such a row makes them less likely",
        "(-1 to 1; the cosine of the gradients where training began).",
        "",
        "| rows | in training | influence, mean |",
        "|---|---|---|",
        *kinds,
        *(["", "| person who corrected | corrections | influence, mean |", "|---|---|---|", *people] if people else []),
        *(["", "Corrections that pulled against them most, with the reaction to take back:", ""] if against else []),
        *(
            f"- {row['influence']:+.3f} {markdown_cell(row['question'])} ({', '.join(row['source'])})"
            for row in against
        ),
    ]


def write_night(home: Path, number: int, text: str) -> Path:
    """Keep a night's card under .flywheel/nights; returns its path."""
    path = home / NIGHTS / f"{number:05d}.md"
    write_text(path, text)
    return path
