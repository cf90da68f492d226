"""`flywheel compare A B`: two versions of the registry item by item, in the terminal, as JSON or as a page."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from flywheel.answers import Answer, registry
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.evaluate.versions import Comparison, Difference
    from tasks.registry.versions import Registry, Version

WORST = 10  # items in the terminal
WIDTH = 110


def two_versions(figures: Answer, names: tuple[str, ...], page: Path | None, most: int) -> Answer:
    """B (the second name) against A, beside the `figures` of both; these alone where a version keeps no answers.

    Raises VersionUnavailable: what is kept with one cannot be fetched whole.
    """
    from tasks.core.files import write_text
    from tasks.evaluate.versions_page import notices, render_versions, summary
    from tasks.registry.pointer import EVALUATION_TAG

    kept = registry()
    versions = [kept.get(name) for name in names]
    if page is None and (old := [one.number for one in versions if EVALUATION_TAG not in one.tags]):
        why = f"version {' and '.join(old)} was judged before answers were kept: only figures can be compared"
        return Answer({**figures.found, "comparison": None, "reason": why}, f"{why}\n{figures.words}")
    found = _compared(kept, versions)
    told = {"notices": notices(found), "summary": summary(found)}
    lines = [f"{side}  version {one.number} ({_about(one)})" for side, one in zip("AB", versions, strict=True)]
    lines += [*told["notices"], "", *told["summary"], "", *_criteria(found), *_categories(found), *_items(found)]
    if page is not None:
        a, b = ({"name": f"version {one.number}", "about": _about(one)} for one in versions)
        write_text(page, render_versions(kept.domain, found, a, b, most))
        lines += ["", str(page)]
    return Answer({**figures.found, "comparison": told | asdict(found), "page": page and str(page)}, "\n".join(lines))


def _compared(kept: Registry, versions: list[Version]) -> Comparison:
    from tasks.core.benchmarks import load_benchmarks
    from tasks.core.params import load_params
    from tasks.evaluate.scoring.questions import read_items
    from tasks.evaluate.versions import compare_versions, read_evaluation
    from tasks.registry.pointer import fetch_evaluation

    with contextlib.chdir(home()), contextlib.ExitStack() as stack:
        params = load_params()
        folders = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in versions]
        before, after = (read_evaluation(fetch_evaluation(kept, *one)) for one in zip(versions, folders, strict=True))
        sets, items = load_benchmarks(params.domain), read_items(corrections=True)
        return compare_versions(before, after, items, sets, params.gate, params.seed)


def _about(version: Version) -> str:
    return ", ".join([*version.aliases, f"verdict {version.tags.get('verdict', '–')}"])


def _criteria(found: Comparison) -> list[str]:
    head = f"{'↓: less is better':<22}{'n':>5}{'A':>9}{'B':>9}{'B − A':>9}  {found.level:.0%} interval"
    lines = [head, *map(_criterion, found.criteria)] if found.criteria else []
    return lines + [f"not compared: {', '.join(names)}: {why}" for why, names in found.refused.items()]


def _criterion(row: Difference) -> str:
    name, change = f"{row.set}_{row.metric}{'' if row.higher_is_better else ' ↓'}", row.change
    figures = f"{change.n:>5}{row.means[0]:>9.3f}{row.means[1]:>9.3f}{change.estimate:>+9.3f}"
    reading = "; ".join(filter(None, (row.reading, row.allowed)))
    return f"{name:<22}{figures}  {f'{change.low:+.3f} to {change.high:+.3f}':<18} {reading}"


def _categories(found: Comparison) -> list[str]:
    """Those in which an answer was lost or won."""
    lines = []
    for name, rows in found.categories.items():
        changed = [row for row in rows if row.lost or row.won]
        head = ["", f"{f'{name}, by category':<44}{'n':>5}{'A':>5}{'B':>5}{'lost':>6}{'won':>5}"]
        lines += head if changed else []
        for row in changed:
            counts = f"{row.n:>5}{row.before:>5}{row.after:>5}{len(row.lost):>6}{len(row.won):>5}"
            lines.append(f"{_line(row.name, 42):<44}{counts}")
    return lines


def _items(found: Comparison) -> list[str]:
    """Those that lost most, with the words that one answer has alone."""
    from tasks.evaluate.versions_page import marked, worst

    losses = worst(found, WORST)
    lines = ["", "what lost most, right answers first"] if losses else []
    for place, (name, pair) in enumerate(losses, 1):
        change = " → ".join("–" if value is None else f"{value:.3g}" for value in pair.scores[name])
        lines += [f"{place:>3}. {name} {change}  {_line(pair.category, 30)}", f"     {_line(pair.question)}"]
        for side, pieces in zip("AB", marked(*(text or "" for text in pair.texts)), strict=True):
            if alone := " … ".join(text.strip() for text, new in pieces if new and text.strip()):
                lines.append(f"     {side} alone: {_line(alone, WIDTH - 9)}")
    return lines


def _line(text: str, most: int = WIDTH) -> str:
    """A text that a model or a source wrote, on one line: nothing in it moves the cursor or hides what follows."""
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    return shown if len(shown := " ".join(words)) <= most else f"{shown[: most - 1]}…"
