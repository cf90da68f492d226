"""The last thing `make run` says: the verdict in words, scores before and after, one answer, times, where to look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.stages import StageRun
from tasks.core import layout
from tasks.core.words import clock
from tasks.evaluate.card.card import Card, Sample, collect, figure

COLOURS = {"promote": "green", "hold": "yellow", "reject": "red"}
CUT = 400


@dataclass(frozen=True)
class ReleaseOutcome:
    """What a release ended with, for the summary; times in seconds."""

    outcome: str
    domain: str
    version: str | None
    aliases: tuple[str, ...]
    note: str
    runs: tuple[StageRun, ...]
    seconds: float


def print_summary(console: Console, outcome: ReleaseOutcome, root: Path) -> None:
    """Print it all. Texts that a model or a source wrote are printed without markup."""
    console.print()
    words = Text(f"{outcome.outcome.upper()}  ", style=f"bold {COLOURS.get(outcome.outcome, 'white')}")
    console.print(words.append(outcome.note, style="default not bold"))
    if not outcome.note.startswith("nothing to do"):
        card = collect(root)
        for reason in card.verdict.get("reasons", []):
            console.print(Text(f"  · {reason}"))
        _print_scores(console, card)
        _print_sample(console, card.samples[0] if card.samples else None)
        _print_times(console, outcome)
    _print_places(console, outcome)


def _print_scores(console: Console, card: Card) -> None:
    table = Table(box=None, padding=(0, 2), title="Scores, with 95% intervals", title_justify="left")
    for name in ("set", "metric", "before", "after"):
        table.add_column(name, justify="left" if name in ("set", "metric") else "right")
    for row in card.scores:
        table.add_row(row.set, row.metric, figure(row.before), figure(row.after))
    console.print()
    console.print(table)


def _print_sample(console: Console, sample: Sample | None) -> None:
    if sample is None:
        return
    console.print()
    for label, text in (("asked ", sample.question), ("before", sample.before), ("after ", sample.after)):
        short = text if len(text) <= CUT else text[:CUT].rstrip() + " …"
        console.print(Text(f"{label}  ", style="bold").append(" ".join(short.split()), style="not bold"))


def _print_times(console: Console, outcome: ReleaseOutcome) -> None:
    inside = sum(run.seconds for run in outcome.runs)
    ran = "   ".join(f"{run.name} {clock(run.seconds)}" for run in outcome.runs if not run.cached)
    cached = sum(run.cached for run in outcome.runs)
    outside = outcome.seconds - inside
    console.print()
    console.print(Text(f"Stages   {ran or 'none ran'}" + (f"   ({cached} cached)" if cached else "")))
    console.print(
        Text(
            f"Total    {clock(outcome.seconds)}, of which {clock(outside)} ({outside / max(outcome.seconds, 0.1):.0%}) "
            f"outside the stages"
        )
    )


def _print_places(console: Console, outcome: ReleaseOutcome) -> None:
    database = f"sqlite:///{(layout.HOME / 'mlflow' / 'mlflow.db').as_posix()}"
    places = {
        "Card": layout.CARD_HTML.as_posix(),
        "Data docs": (layout.DATA_DOCS / "index.html").as_posix(),
        "Verdict": layout.VERDICT.as_posix(),
        "Lineage": f".venv/bin/flywheel trace {outcome.version}",
        "MLflow": f".venv/bin/mlflow ui --backend-store-uri {database}",
        "Prefect": f"PREFECT_HOME={(layout.HOME / 'prefect').as_posix()} .venv/bin/prefect server start",
    }
    console.print()
    for name, place in places.items():
        console.print(Text(f"{name:<10} {place}"), soft_wrap=True)
