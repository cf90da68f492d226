"""What a person sees during `make run`: one line a stage with time left, then the summary.

On a terminal the current stage is one live line; elsewhere (CI, a log file) stages are plain lines, with a sign of life
every minute. Under a worker nothing is printed here: the same news goes to the Prefect log.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from flows.stages import StageRun, seconds_left
from tasks.core.words import clock

if TYPE_CHECKING:
    from flows.summary import ReleaseOutcome


HEARTBEAT_SECONDS = 60.0


class RunProgress:
    """Progress on the console. One that is quiet says nothing: for runs that nobody watches."""

    outcome: ReleaseOutcome | None = None

    def __init__(self, console: Console) -> None:
        """`console` decides whether there is a terminal to draw on."""
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
