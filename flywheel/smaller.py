"""`flywheel smaller`: the packaged version quantised or distilled, and judged by the gate against itself."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import click

from flywheel.answers import Answer, answer, json_option
from tasks.core.layout import home

if TYPE_CHECKING:
    from tasks.train.smaller.smaller import Smaller


@click.command()
@json_option
@click.option("--quantise", type=click.Choice(["q8_0", "q4_1"]), help="Eight or four bits a weight, as a GGUF file.")
@click.option("--distil", type=int, metavar="LAYERS", help="A student with so many layers, trained on answers.")
@click.option("--judge/--no-judge", default=True, show_default=True, help="Measure it and put it to the gate.")
def smaller(as_json: bool, quantise: str | None, distil: int | None, judge: bool) -> None:
    """Make a smaller form of the packaged version, and judge it against the version.

    It lies in .flywheel/smaller with its verdict. Exit status: 0 made, and the gate says promote where it was asked;
    1 it could not be made; 2 the gate says hold or reject.
    """
    if (quantise is None) == (distil is None):
        raise click.UsageError("name one of --quantise and --distil")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.chdir(home())
    outcomes: list[str] = []
    answer(lambda: _smaller(quantise, distil, judge, outcomes), as_json)
    sys.exit(0 if outcomes in ([], ["promote"]) else 2)


def _smaller(quantise: str | None, distil: int | None, judge: bool, outcomes: list[str]) -> Answer:
    from typing import cast

    from tasks.core.stage import hush
    from tasks.train.smaller import smaller as forms
    from tasks.train.smaller.quantise import Quantisation

    hush()
    form = forms.quantised(cast(Quantisation, quantise)) if quantise else forms.distilled(distil or 0)
    found = {"package": str(form.folder / "package"), "digest": form.digest, **form.about}
    lines = [f"{found['package']}: {form.about['bytes'] / 1e6:.0f} MB, digest {form.digest[:12]}"]
    if judge:
        verdict, said = _judged(form)
        outcomes.append(str(verdict["outcome"]))
        found, lines = {**found, "verdict": verdict}, [*lines, *said]
    return found, "\n".join(lines)


def _judged(form: Smaller) -> tuple[dict[str, object], list[str]]:
    from tasks.evaluate.smaller import judge_smaller

    verdict = judge_smaller(form.weights, form.digest, form.folder)
    return verdict.model_dump(mode="json"), [f"{verdict.outcome}: {verdict.reasons[0]}", *verdict.reasons[1:]]
