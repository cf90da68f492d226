"""What a person sees during `make run`: one line a stage with time left, then the summary of what it came to.

On a terminal the current stage is one live line; elsewhere (CI, a log file) stages are plain lines, with a sign of life
every minute. Under a worker nothing is printed here: the same news goes to the Prefect log.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flows.stages import StageRun, seconds_left
from tasks.core import layout
from tasks.core.words import clock
from tasks.evaluate.card.card import Card, Sample, collect, figure, right_answers

HEARTBEAT_SECONDS = 60.0
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


class RunProgress:
    """Progress on the console. One that is quiet says nothing: for runs that nobody watches."""

    outcome: ReleaseOutcome | None = None

    def __init__(self, console: Console) -> None:
        self._console = console
        self._waiting: list[str] = []
        self._known: dict[str, float] = {}
        self._current, self._started, self._text = "", 0.0, ""
        self._quiet = threading.Event()
        self._live: Live | None = None
        self._spinner = Spinner("dots")

    def plan(self, waiting: list[str], known: dict[str, float]) -> None:
        """Remember what is to run, for the time left."""
        self._waiting, self._known = list(waiting), known

    def say(self, text: str) -> None:
        """Print one line above the live line."""
        self._console.print(text, highlight=False)

    def stage_started(self, name: str) -> None:
        """Show the stage as running."""
        self._waiting = [other for other in self._waiting if other != name]
        self._current, self._started, self._text = name, time.monotonic(), ""
        if self._console.quiet:
            return
        if self._console.is_terminal:
            self._live = Live(self, console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        else:
            self.say(f"  … {name}{self._left()}")
            threading.Thread(target=self._beat, args=(self._quiet,), daemon=True).start()

    def stage_said(self, text: str) -> None:
        """Keep the newest line, for the live line."""
        self._text = text

    def stage_ended(self, run: StageRun) -> None:
        """Replace the live line by the outcome."""
        self.close()
        self._waiting = [other for other in self._waiting if other != run.name]
        mark, took = ("=", "cached") if run.cached else ("✓", clock(run.seconds))
        self.say(f"  {mark} {run.name:<22} {took:>8}")

    def finished(self, outcome: ReleaseOutcome) -> None:
        """The release ended with a verdict, or with nothing to do."""
        self.outcome = outcome

    def close(self) -> None:
        """Take the live line away."""
        self._quiet.set()
        self._quiet = threading.Event()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _left(self) -> str:
        left = seconds_left(self._waiting, self._current, time.monotonic() - self._started, self._known)
        return "" if left is None else f"   about {clock(left)} left of the run"

    def _beat(self, quiet: threading.Event) -> None:
        while not quiet.wait(HEARTBEAT_SECONDS):
            self.say(
                f"  … {self._current} for {clock(time.monotonic() - self._started)}{self._left()}  {self._text[:60]}"
            )

    def __rich__(self) -> Spinner:
        """The live line."""
        elapsed = clock(time.monotonic() - self._started)
        room = max(0, self._console.width - 50 - len(self._left()))
        self._spinner.update(
            text=Text(f"{self._current:<22} {elapsed:>8}{self._left()}  {self._text[:room]}", no_wrap=True)
        )
        return self._spinner


reporter: ContextVar[RunProgress] = ContextVar("reporter", default=RunProgress(Console(quiet=True)))  # noqa: B039 - says nothing


@contextlib.contextmanager
def reporting(to: RunProgress) -> Iterator[None]:
    """Send the news of the block to `to`."""
    token = reporter.set(to)
    try:
        yield
    finally:
        to.close()
        reporter.reset(token)


def print_summary(console: Console, outcome: ReleaseOutcome, root: Path) -> None:
    """Print it all. Texts that a model or a source wrote are printed without markup."""
    console.print()
    words = Text(f"{outcome.outcome.upper()}  ", style=f"bold {COLOURS.get(outcome.outcome, 'white')}")
    console.print(words.append(outcome.note, style="default not bold"))
    if not outcome.note.startswith("nothing to do"):
        card = collect(root)
        if right := right_answers(card.verdict):
            console.print(Text(right, style="bold"))
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
