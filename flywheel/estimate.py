"""`flywheel estimate`: what the training that params.yaml asks for will take, before it starts."""

from __future__ import annotations

import sys

import click

from flywheel.answers import Answer, answer, json_option
from tasks.core.layout import home

STAGES = ("pretrain", "sft", "reward", "align")


@click.command()
@click.option("--stage", type=click.Choice(STAGES), help="Only this stage; otherwise all that are switched on.")
@click.option("--probe/--no-probe", default=True, help="Run three real steps (half a minute), or trust the formulas.")
@json_option
def estimate(stage: str | None, probe: bool, as_json: bool) -> None:
    """Say what training will need: parameters, memory, disk, time, energy and money, here and on GPUs for hire.

    Written to reports/estimate.json too. Exit status 3: it cannot run here; what would fit is said.
    """
    fits: list[bool] = []

    def work() -> Answer:
        from tasks.core import layout
        from tasks.core.files import write_json
        from tasks.train import estimate_all

        found = estimate_all.estimate(home(), stage, "always" if probe else "known")
        write_json(home() / layout.ESTIMATE, found)
        fits.append(all(row["fits"] for row in found["stages"]))
        return found, estimate_all.words(found)

    answer(work, as_json)
    sys.exit(0 if all(fits) else 3)
