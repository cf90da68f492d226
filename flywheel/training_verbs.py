"""The verbs about training: estimate, search, smaller. Each imports what it needs when it runs."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

import click

from flywheel.answers import Answer, verb
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.train.smaller import Quantisation


@verb
@click.option(
    "--stage",
    type=click.Choice(("pretrain", "sft", "reward", "align")),
    help="Only this stage; otherwise all that are switched on.",
)
@click.option("--probe/--no-probe", default=True, help="Run three real steps (half a minute), or trust the formulas.")
def estimate(stage: str | None, probe: bool) -> Answer:
    """Say what training will need: parameters, memory, disk, time, energy and money, here and on GPUs for hire.

    Written to reports/estimate.json too. Exit status 3: it cannot run here; what would fit is said.
    """
    from tasks.core import layout
    from tasks.core.files import write_json
    from tasks.train import estimate_all

    found = estimate_all.estimate(home(), stage, "always" if probe else "known")
    write_json(home() / layout.ESTIMATE, found)
    return Answer(found, estimate_all.words(found), 0 if all(row["fits"] for row in found["stages"]) else 3)


@verb
@click.option("--trials", type=click.IntRange(min=1), default=10, show_default=True, help="Trainings to try, at most.")
@click.option("--minutes", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Time to spend.")
@click.option("--space", type=click.Path(dir_okay=False), default="infra/search.yaml", show_default=True)
def search(trials: int, minutes: float, space: str) -> Answer:
    """Search for settings with a lower validation loss; each trial is a child run in MLflow.

    Goes on where it was when it is called again. params.yaml stays as it is; the best settings are printed.
    """
    from flows.search import read_space
    from flows.search import search as run

    _end_in_order(signal.SIGTERM, signal.SIGINT)  # the trial's training ends, its run is closed
    found = run(home(), read_space(home() / space), trials, minutes)
    best = found["best"]
    lines = [f"best of {len(found['trials'])} trials: validation loss {best['validation_loss']:.4f} nats a token"]
    return Answer(found, "\n".join([*lines, *(f"  {name}: {value}" for name, value in best["settings"].items())]))


@verb
@click.option("--quantise", type=click.Choice(["q8_0", "q4_1"]), help="Eight or four bits a weight, as a GGUF file.")
@click.option("--distil", type=int, metavar="LAYERS", help="A student with so many layers, trained on answers.")
@click.option("--judge/--no-judge", default=True, show_default=True, help="Measure it and put it to the gate.")
def smaller(quantise: Quantisation | None, distil: int | None, judge: bool) -> Answer:
    """Make a smaller form of the packaged version, and judge it against the version.

    It lies in .flywheel/smaller with its verdict. Exit status: 0 made, and the gate says promote where it was asked;
    1 it could not be made; 2 the gate says hold or reject.
    """
    from tasks.core.stage import hush
    from tasks.evaluate.smaller import judge_smaller
    from tasks.train import smaller as forms

    if (quantise is None) == (distil is None):
        raise click.UsageError("name one of --quantise and --distil")
    _end_in_order(signal.SIGTERM)
    os.chdir(home())
    hush()
    form = forms.quantised(quantise) if quantise else forms.distilled(distil or 0)
    found = {"package": str(form.folder / "package"), "digest": form.digest, **form.about}
    words = f"{found['package']}: {form.about['bytes'] / 1e6:.0f} MB, digest {form.digest[:12]}"
    if not judge:
        return Answer(found, words)
    verdict = judge_smaller(form.weights, form.digest, form.folder)
    said = [words, f"{verdict.outcome}: {verdict.reasons[0]}", *verdict.reasons[1:]]
    status = 0 if verdict.outcome == "promote" else 2
    return Answer({**found, "verdict": verdict.model_dump(mode="json")}, "\n".join(said), status)


def _end_in_order(*signals: signal.Signals) -> None:
    """End by SystemExit, so that what was begun is closed; an Exception would count a search's trial as failed."""

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in signals:
        signal.signal(number, leave)


VERBS = (estimate, search, smaller)
