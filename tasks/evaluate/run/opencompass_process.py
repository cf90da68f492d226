"""OpenCompass as a child process: started, watched, stopped. What it measured is read by opencompass_results.

It runs in the evaluation environment, supervised, so that it ends with us however we end. All it prints goes to a log
file; its progress bars come out here as one line every few seconds. Scores are never read from the log.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from tasks.core import layout
from tasks.core.benchmarks import DATA_VARIABLE
from tasks.core.errors import FlywheelError
from tasks.core.processes import start, stop

OUR_CODE = Path(__file__).resolve().parents[3]  # the folder that holds the package `tasks`
QUIET = 5.0  # seconds between two progress lines of one data set
LOOK = 0.2  # seconds between two looks at its log
GRACE = 5.0  # seconds its processes get to end by themselves
STARTED = re.compile(r"Start inferencing \[[^/]+/(?P<name>\w+)\]")
BAR = re.compile(r"(?P<done>\d+)/(?P<total>\d+) \[(?P<spent>[\d:]+)<(?P<left>[\d:?]+)")


class EvaluationError(FlywheelError):
    """An evaluation could not be finished, or its results are not whole. No score is written."""


def run_opencompass(config: Path, folder: Path, label: str, minutes: float) -> None:
    """Run OpenCompass on `config`, results below `folder`/runs, its output in `folder`/opencompass.log.

    Raises EvaluationError: it is not installed, failed, was killed, or took longer than `minutes`.
    """
    module = ["opencompass.cli.main", str(config), "-w", str(folder / "runs"), "--debug"]
    _run(module, folder, label, minutes, {})


def run_sets(folder: Path, data: Path, label: str, minutes: float) -> None:
    """Run OpenCompass on the benchmarks of `folder`/request.json, whose data lie in `data`; see run_opencompass."""
    module = ["tasks.evaluate.run.opencompass_sets", str(folder)]
    _run(module, folder, label, minutes, {DATA_VARIABLE: str(data.absolute())})


def _run(module: list[str], folder: Path, label: str, minutes: float, environment: dict[str, str]) -> None:
    # Not resolved: the environment is found through the link's own place.
    python = layout.EVALUATION_PYTHON.absolute()
    if not python.exists():
        raise EvaluationError(
            f"{layout.EVALUATION_PYTHON} is missing: build the evaluation environment (`flywheel doctor` tells how)"
        )
    command = [str(python), "-m", *module]
    log = folder / "opencompass.log"
    deadline = time.monotonic() + 60 * minutes
    progress, status = ProgressLines(label), None
    # One thread a pass: opencompass_model runs passes side by side.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment = layout.child_environment(PYTHONPATH=str(OUR_CODE), TQDM_MININTERVAL="1", **threads, **environment)
    with log.open("wb") as stream, log.open("rb") as written:
        child = start(command, grace=GRACE, cwd=folder, env=environment, out=stream)
        try:
            while status is None:
                time.sleep(LOOK)
                status = child.poll()
                for line in progress.feed(written.read().decode("utf-8", errors="replace"), time.monotonic()):
                    print(line, flush=True)
                if status is None and time.monotonic() > deadline:
                    raise EvaluationError(
                        f"OpenCompass did not end within {minutes:g} minutes; raise evaluate.timeout_minutes in "
                        f"params.yaml, or see {_short(log)} for what it waited on"
                    )
        finally:
            stop(child)
    if status != 0:
        raise EvaluationError(_cause(status, log))


class ProgressLines:
    """Turns progress bars into lines: which data set, how far, how long still."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.rest = ""
        self.name = ""
        self.shown = float("-inf")

    def feed(self, text: str, now: float) -> list[str]:
        """The lines to show for a piece of output that arrived at `now` (seconds, monotonic)."""
        *whole, self.rest = re.split(r"[\r\n]", self.rest + text)
        return [line for piece in whole if (line := self._line(piece, now))]

    def _line(self, piece: str, now: float) -> str | None:
        if started := STARTED.search(piece):
            self.name, self.shown = started["name"], float("-inf")
            return None
        bar = BAR.search(piece)
        if not bar or not self.name:
            return None
        finished = bar["done"] == bar["total"]
        if not finished and now - self.shown < QUIET:
            return None
        self.shown = now
        left = "done" if finished else f"{bar['left']} left"
        line = f"{self.label}: {self.name} {bar['done']}/{bar['total']} steps in {bar['spent']}, {left}"
        if finished:
            self.name = ""
        return line


def _cause(status: int, log: Path) -> str:
    signal = -status if status < 0 else status - 128  # of its supervisor, or of itself
    how = f"was killed by signal {signal}" if signal > 0 else f"failed with status {status}"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = f" Its last line: {lines[-1].strip()[:300]}" if lines else ""
    return f"OpenCompass {how}; no score was written. See {_short(log)}, then run the stage again.{last}"


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
