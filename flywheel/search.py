"""`flywheel search`: better settings of supervised fine-tuning, tried out within a budget."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from flywheel.answers import Answer, answer, json_option
from tasks.core.layout import home


@click.command()
@click.option("--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Trainings to try, at most.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Time to spend.")
@click.option("--space", type=click.Path(dir_okay=False), default="infra/search.yaml", show_default=True)
@json_option
def search(trials: int, minutes: float, space: str, as_json: bool) -> None:
    """Search for settings with a lower validation loss; each trial is a child run in MLflow.

    Goes on where it was when it is called again. params.yaml stays as it is; the best settings are printed.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # an orderly end: the trial's training ends, its run is closed
        signal.signal(number, _stop)

    def work() -> Answer:
        from flows.search import search as run
        from flows.search_space import read_space

        found = run(home(), read_space(home() / space), trials, minutes)
        best = found["best"]
        lines = [f"best of {len(found['trials'])} trials: validation loss {best['validation_loss']:.4f} nats a token"]
        lines += [f"  {name}: {value}" for name, value in best["settings"].items()]
        return found, "\n".join(lines)

    answer(work, as_json)


def _stop(number: int, frame: FrameType | None) -> None:
    """An exception of Optuna's kind would count the trial as failed; leaving by this one, it is tried again."""
    sys.exit(128 + number)
