"""How fine a loss can the general sets settle? Measured on the base model alone, before anything is trained.

`python -m tests.bench.bench_margins` asks every MMLU and safety item in several wordings that mean the same. The spread
of the paired differences from the plain wording is noise by construction, and gives the smallest margin that a
non-inferiority test on that many items can be held to (one-sided 5%, power 80% where nothing is lost; Julious 2004,
section 5); the wording that spreads most decides:

    margin = (z(0.95) + z(0.80)) · sd / √n

Limits: a change of wording stands in for a change of model, whose differences may spread more or less. Not a stage:
its figures are in docs/evaluation.md and its margins in params.yaml, fixed by hand before the first training.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem
from tasks.evaluate.run.stage import load_tokenizer, responses_to
from tasks.evaluate.scoring.questions import questions_of, read_items, scores_of
from tasks.evaluate.scoring.subject import base_alone

PILOTED = {"mmlu": "p_correct", "safety": "refusal"}
SIGNIFICANCE, POWER = 0.95, 0.80

Values = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Wording:
    """One way to put an item; an empty system prompt stands for the domain's own."""

    name: str
    prompt: str = "{prompt}"
    system: str = ""


PLAIN = Wording("plain")
OTHERS = (
    Wording("asked politely", prompt="Please answer the following.\n\n{prompt}"),
    Wording("asked to answer", prompt="{prompt}\n\nGive your answer."),
    Wording("general system", system="You are a helpful assistant."),
)


@dataclass(frozen=True)
class Resolution:
    """One wording against the plain one: mean shift, paired standard deviation, the margin `n` items resolve."""

    set: str
    metric: str
    wording: str
    n: int
    shift: float
    deviation: float
    margin: float


def smallest_margin(differences: Sequence[float]) -> float:
    """The margin of the formula above, in the unit of the differences; needs two of them at least."""
    normal = statistics.NormalDist()
    factor = normal.inv_cdf(SIGNIFICANCE) + normal.inv_cdf(POWER)
    return factor * statistics.stdev(differences) / math.sqrt(len(differences))


def reworded(item: EvaluationItem, wording: Wording) -> EvaluationItem:
    """The item as `wording` puts it, under its own id."""
    return item.model_copy(update={"prompt": wording.prompt.format(prompt=item.prompt)})


def resolutions() -> list[Resolution]:
    """Measure the base model in every wording (cached like any evaluation) and compare each with the plain one."""
    items = [item for item in read_items() if item.set in PILOTED]
    plain = _values(items, PLAIN)
    return [resolution for wording in OTHERS for resolution in _compared(plain, _values(items, wording), wording)]


def _values(items: Sequence[EvaluationItem], wording: Wording) -> Values:
    """(set, item id) → the piloted metric."""
    params = load_params()
    subject = base_alone("pilot")
    tokenizer = load_tokenizer(subject.base)
    system = wording.system or load_domain(params.domain).system_text()
    questions = questions_of([reworded(item, wording) for item in items], tokenizer, system)
    responses, _ = responses_to(questions, subject, params.evaluate)
    scores = [score for pair in zip(questions, responses, strict=True) for score in scores_of(*pair)]
    return {(score.set, score.id): score.value for score in scores if score.metric == PILOTED[score.set]}


def _compared(plain: Values, other: Values, wording: Wording) -> list[Resolution]:
    found = []
    for name, metric in PILOTED.items():
        differences = [other[key] - value for key, value in plain.items() if key[0] == name]
        shift, deviation = statistics.fmean(differences), statistics.stdev(differences)
        margin = smallest_margin(differences)
        found.append(Resolution(name, metric, wording.name, len(differences), shift, deviation, margin))
    return found


def main() -> None:
    """Print the table of resolutions."""
    os.environ.update(layout.OFFLINE)
    found = resolutions()
    print(f"{'set':<8}{'metric':<11}{'wording':<17}{'items':>6}{'shift':>9}{'sd':>9}{'margin':>9}")
    for row in sorted(found, key=lambda row: (row.set, row.margin)):
        print(
            f"{row.set:<8}{row.metric:<11}{row.wording:<17}{row.n:>6}"
            f"{row.shift:>9.4f}{row.deviation:>9.4f}{row.margin:>9.4f}"
        )


if __name__ == "__main__":
    main()
