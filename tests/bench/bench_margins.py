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

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem
from tasks.evaluate.run.stage import load_tokenizer, responses_to
from tasks.evaluate.scoring.questions import questions_of, read_items, scores_of
from tasks.evaluate.scoring.subject import base_alone
from tests.bench.table import show

PILOTED = {"mmlu": "p_correct", "safety": "refusal"}
SIGNIFICANCE, POWER = 0.95, 0.80

WORDINGS = {
    "asked politely": {"prompt": "Please answer the following.\n\n{prompt}"},
    "asked to answer": {"prompt": "{prompt}\n\nGive your answer."},
    "general system": {"system": "You are a helpful assistant."},
}
Values = dict[tuple[str, str], float]


def values(items: Sequence[EvaluationItem], prompt: str = "{prompt}", system: str = "") -> Values:
    """(set, item id) → the piloted metric of the base model (cached like any evaluation), asked in this wording."""
    params, subject = load_params(), base_alone("pilot")
    reworded = [item.model_copy(update={"prompt": prompt.format(prompt=item.prompt)}) for item in items]
    system = system or load_domain(params.domain).system_text()
    questions = questions_of(reworded, load_tokenizer(subject.base), system)
    responses, _ = responses_to(questions, subject, params.evaluate)
    scores = [score for pair in zip(questions, responses, strict=True) for score in scores_of(*pair)]
    return {(score.set, score.id): score.value for score in scores if score.metric == PILOTED[score.set]}


def main() -> None:
    """Compare every wording with the plain one."""
    os.environ.update(layout.OFFLINE)
    items = [item for item in read_items() if item.set in PILOTED]
    plain, normal = values(items), statistics.NormalDist()
    factor = normal.inv_cdf(SIGNIFICANCE) + normal.inv_cdf(POWER)
    rows = []
    for wording, changes in WORDINGS.items():
        other = values(items, **changes)
        for name, metric in PILOTED.items():
            changed = [other[key] - value for key, value in plain.items() if key[0] == name]
            deviation = statistics.stdev(changed)
            figures = statistics.fmean(changed), deviation, factor * deviation / math.sqrt(len(changed))
            rows.append((name, metric, wording, len(changed), *(f"{value:.4f}" for value in figures)))
    columns = ("set", "metric", "wording", "items", "shift", "sd", "margin")
    show("what so many items can settle", columns, sorted(rows, key=lambda row: (row[0], row[-1])))


if __name__ == "__main__":
    main()
