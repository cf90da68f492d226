"""How fine a loss can the general sets settle? Measured on the base model alone, before anything is trained.

`python -m tasks.evaluate.pilot` asks every MMLU and safety item twice, in two wordings that mean the same. The
spread of the paired differences is noise by construction, and gives the smallest margin a non-inferiority test on
that many items can be asked to keep to (one-sided 5%, power 80% where nothing is lost; Julious 2004, section 5):

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

from tasks import layout
from tasks.domain import load_domain
from tasks.evaluate.measures import questions_of, scores_of
from tasks.evaluate.run import conditions_of, load_tokenizer, measure, read_items
from tasks.evaluate.subject import base_alone
from tasks.params import load_params
from tasks.records import EvaluationItem, make_item

OTHER_WORDING = "Please answer the following.\n\n{prompt}"
PILOTED = {"mmlu": "p_correct", "safety": "refusal"}
SIGNIFICANCE, POWER = 0.95, 0.80


@dataclass(frozen=True)
class Resolution:
    """What `n` items of a set resolve: the paired standard deviation, the shift between wordings, the margin."""

    set: str
    metric: str
    n: int
    shift: float
    deviation: float
    margin: float


def smallest_margin(differences: Sequence[float]) -> float:
    """The margin of the formula above, in the unit of the differences; needs two of them at least."""
    normal = statistics.NormalDist()
    factor = normal.inv_cdf(SIGNIFICANCE) + normal.inv_cdf(POWER)
    return factor * statistics.stdev(differences) / math.sqrt(len(differences))


def reworded(item: EvaluationItem) -> EvaluationItem:
    """The same item in the other wording, under an id of its own."""
    fields = item.model_dump(exclude={"id"})
    return make_item(**{**fields, "prompt": OTHER_WORDING.format(prompt=item.prompt)})


def resolutions() -> list[Resolution]:
    """Measure the base model in both wordings (cached like any evaluation); one resolution for each set."""
    params = load_params()
    subject = base_alone("pilot")
    tokenizer = load_tokenizer(subject.base)
    items = [item for item in read_items() if item.set in PILOTED]
    twice = [version for item in items for version in (item, reworded(item))]
    questions = questions_of(twice, tokenizer, load_domain(params.domain).system_text())
    outcomes, _ = measure(questions, subject, conditions_of(params.evaluate), params.evaluate, tokenizer.eos_token_id)
    values = {
        (score.id, score.metric): score.value
        for question, outcome in zip(questions, outcomes, strict=True)
        for score in scores_of(question, outcome)
    }
    found = []
    for name, metric in PILOTED.items():
        differences = [
            values[reworded(item).id, metric] - values[item.id, metric] for item in items if item.set == name
        ]
        found.append(_resolution(name, metric, differences))
    return found


def _resolution(name: str, metric: str, differences: Sequence[float]) -> Resolution:
    shift, deviation = statistics.fmean(differences), statistics.stdev(differences)
    return Resolution(name, metric, len(differences), shift, deviation, smallest_margin(differences))


def main() -> None:
    """Print the table of resolutions."""
    os.environ.update(layout.OFFLINE)
    print(f"{'set':<8}{'metric':<12}{'items':>6}{'shift':>10}{'sd':>10}{'margin':>10}")
    for row in resolutions():
        print(f"{row.set:<8}{row.metric:<12}{row.n:>6}{row.shift:>10.4f}{row.deviation:>10.4f}{row.margin:>10.4f}")


if __name__ == "__main__":
    main()
