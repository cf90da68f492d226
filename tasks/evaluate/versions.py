"""Two versions, item by item: B against A, from what is kept of their evaluations. No model is asked.

The criteria are those of the gate, by its own statistics. Where it would refuse to compare, so is it here: what was
measured under other conditions or on other items has no interval. Answers are texts, which a reader may always compare.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.core.benchmarks import Benchmark
from tasks.core.intervals import SMALLEST_SAMPLE, Interval
from tasks.core.params import GateParams
from tasks.core.records import DECIMALS, EvaluationItem, Score, read_own_jsonl
from tasks.evaluate.gate.categories import by_category
from tasks.evaluate.gate.decide import Answer, decide
from tasks.evaluate.gate.requirements import (
    DECLINED_KEPT,
    DOMAIN_KEPT,
    ELSEWHERE,
    LEARNT,
    RIGHT_KEPT,
    Requirement,
    of_benchmarks,
)
from tasks.evaluate.gate.scores import Table, Values, groups_of
from tasks.evaluate.gate.verdict import Category, compared, limits_of
from tasks.evaluate.scoring.questions import COST, FACTS, FEEDBACK, KEPT, METRICS, GeneratedAnswer

Column = tuple[str, str]  # a set and a metric
Reading = Literal["better", "worse", "no difference shown"]

ASKED = (RIGHT_KEPT, *DOMAIN_KEPT, DECLINED_KEPT, *ELSEWHERE, LEARNT)
COUNTED = {(FACTS, "right"): "Right answers", ("declining", "declined"): "Unanswerable questions that are declined"}
LESS_IS_BETTER = {(FACTS, "contradicted"), (FACTS, "declined"), (FACTS, "degenerate")}
UNKNOWN = "(not among the questions at hand)"


@dataclass(frozen=True)
class Evaluation:
    """What is kept of the evaluation of one version; answers by the ids of their items."""

    conditions: dict[str, Any]
    table: Table
    answers: dict[str, GeneratedAnswer]


@dataclass(frozen=True)
class Difference:
    """A criterion: the means of A and B, and B minus A with its interval; `margin` is what may be lost.

    `reading` is what is shown of the difference from 0, `allowed` what of the margin, in words.
    """

    set: str
    metric: str
    unit: str
    higher_is_better: bool
    means: tuple[float, float]
    change: Interval
    margin: float | None
    reading: Reading
    allowed: str


@dataclass(frozen=True)
class Changed:
    """The items of a set that one metric calls lost or won, of `n` that both have, by their ids; the largest first."""

    set: str
    metric: str
    higher_is_better: bool
    n: int
    lost: tuple[str, ...]
    won: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """An item in A and in B: answers, sources of their passages, scores by "set metric"; None where none is kept."""

    id: str
    category: str
    question: str
    reference: str
    texts: tuple[str | None, ...]
    passages: tuple[tuple[str, ...], ...]
    scores: dict[str, tuple[float | None, float | None]]


@dataclass(frozen=True)
class Comparison:
    """B against A. `differing`: conditions with both values. `refused`: why criteria are not compared → their names.

    `categories`: "set metric" → the most lost first. `items`: those that changed, by their ids.
    """

    differing: dict[str, tuple[Any, Any]]
    level: float
    criteria: list[Difference]
    refused: dict[str, list[str]]
    categories: dict[str, tuple[Category, ...]]
    columns: list[Changed]
    items: dict[str, Pair]


def read_evaluation(folder: Path) -> Evaluation:
    """An evaluation as write_evaluation wrote it. Raises RecordError: a file of it is missing or damaged."""
    table: Table = {}
    for score in read_own_jsonl(folder / "scores.jsonl", Score):
        table.setdefault((score.set, score.metric), {})[score.id] = score.value
    answers = {answer.id: answer for answer in read_own_jsonl(folder / "answers.jsonl", GeneratedAnswer)}
    return Evaluation(json.loads((folder / "conditions.json").read_text(encoding="utf-8")), table, answers)


def compare_versions(
    before: Evaluation,
    after: Evaluation,
    items: Sequence[EvaluationItem],
    sets: Sequence[Benchmark],
    settings: GateParams,
    seed: int,
) -> Comparison:
    """B (`after`) against A; `items` are the questions at hand, `sets` the domain's own benchmarks.

    Items that are not at hand are known by their answers alone; they have no category, and count as independent.
    """
    asked, known = criteria_of(sets), {item.id: item for item in items}
    labels = dict.fromkeys((key for column in COUNTED for key in before.table.get(column, {})), UNKNOWN)
    labels |= {item.id: item.category or "(none)" for item in items}
    less = LESS_IS_BETTER | {(one.set, one.metric) for one in asked if not one.higher_is_better}
    by_reason: dict[str, list[Requirement]] = {}
    for one in asked:
        if any((one.set, one.metric) in side.table for side in (before, after)):
            by_reason.setdefault(_refusal((one.set, one.metric), before, after), []).append(one)
    fair = by_reason.pop("", [])
    shown = [one for one in _order(before.table) if _of_answers(one) or not _unlike(one, before, after)]
    shown = [one for one in shown if one[1] not in COST]  # neither lost nor won
    columns = [_changed(one, before.table[one], after.table.get(one, {}), one in less) for one in shown]
    ids = dict.fromkeys(key for column in columns for key in (*column.lost, *column.won))
    return Comparison(
        differing={
            name: (before.conditions.get(name), after.conditions.get(name)) for name in _differing(before, after)
        },
        level=settings.level,
        criteria=_differences(fair, before.table, after.table, settings, seed, groups_of(items)),
        refused={why: [one.name for one in ones] for why, ones in by_reason.items()},
        categories={
            " ".join(one): by_category(labels, after.table.get(one, {}), before.table[one], (1 - settings.level) / 2)
            for one in COUNTED
            if one in before.table
        },
        columns=columns,
        items={key: _pair(key, before, after, known.get(key)) for key in ids},
    )


def criteria_of(sets: Sequence[Benchmark]) -> list[Requirement]:
    """All that the gate may ask, as of a night; a benchmark without a margin is asked for its difference alone."""
    own = {
        one.name: Requirement(one.name, one.metric, "superiority", one.name, more=one.higher_is_better) for one in sets
    }
    own |= {one.set: one for one in of_benchmarks(sets, gain=False) if one.kind == "non_inferiority"}
    return [*ASKED, *own.values()]


def _of_answers(column: Column) -> bool:
    """Whether a score is of an answer's text, which a reader can see and no tokenizer changes."""
    return column[0] in (FACTS, "declining") or column[1] == "rouge_l"


def _differing(before: Evaluation, after: Evaluation) -> list[str]:
    """The conditions that are not the same, but for what makes a version; sets are looked at one by one."""
    old, new = before.conditions, after.conditions
    return sorted(key for key in (old.keys() | new) - {"model", "system", "sets"} if old.get(key) != new.get(key))


def _unlike(column: Column, before: Evaluation, after: Evaluation) -> list[str]:
    """The conditions that differ of those on which a score depends."""
    asked = [(side.conditions.get("sets") or {}).get(column[0]) for side in (before, after)]
    found = [name for name in _differing(before, after) if name != "tokenizer" or not _of_answers(column)]
    return found + ([f"{column[0]}: its data or configuration"] if asked[0] != asked[1] else [])


def _refusal(column: Column, before: Evaluation, after: Evaluation) -> str:
    """Why a criterion is not compared; "" where it is. Corrections are others in each version: those of both count."""
    if unlike := _unlike(column, before, after):
        return f"measured under different conditions ({', '.join(unlike)})"
    old, new = (side.table.get(column, {}).keys() for side in (before, after))
    both = len(old & new)
    if old != new and column[0] not in (FEEDBACK, KEPT):
        return f"asked of other items: {both} in common, {len(old - new)} in A alone, {len(new - old)} in B alone"
    return "" if both >= SMALLEST_SAMPLE else f"{both} items in common are too few; {SMALLEST_SAMPLE} are needed"


def _differences(
    asked: Sequence[Requirement],
    before: Table,
    after: Table,
    settings: GateParams,
    seed: int,
    groups: Mapping[str, str],
) -> list[Difference]:
    """Each criterion decided twice, by the gate's own rules: against 0, and against what may be lost."""
    common = {at: {key: values[key] for key in values.keys() & before.get(at, {})} for at, values in after.items()}
    kept = [one for one in asked if one.kind == "non_inferiority"]
    gains, losses = (
        decide([compared(one, common, before, settings, groups) for one in ones], limits_of(settings, seed)).answers
        for ones in ([replace(one, kind="superiority", margin="") for one in asked], kept)
    )
    allowed = {one: (one.bound(settings), loss) for one, loss in zip(kept, losses, strict=True)}
    found = []
    for one, gain in zip(asked, gains, strict=True):
        values, (margin, loss) = common[one.set, one.metric], allowed.get(one, (None, None))
        means = [math.fsum(side[key] for key in values) / len(values) for side in (before[one.set, one.metric], values)]
        way = 1 if one.higher_is_better else -1
        low, high = sorted(way * end + 0.0 for end in (gain.found.low, gain.found.high))  # + 0.0: no -0.0
        found.append(
            Difference(
                one.set,
                one.metric,
                one.unit,
                one.higher_is_better,
                (round(means[0], DECIMALS), round(means[1], DECIMALS)),
                Interval(way * gain.found.estimate + 0.0, low, high, gain.found.n),
                margin,
                "better" if gain.passed else "worse" if gain.harm else "no difference shown",
                _allowed(loss, margin) if loss and margin else "",
            )
        )
    return found


def _allowed(loss: Answer, margin: float) -> str:
    """What is shown of a loss beside what may be lost."""
    if loss.passed:
        return f"within the {margin:g} that may be lost"
    if loss.found.low > margin:
        return f"more than the {margin:g} that may be lost, by the whole interval"
    return loss.short or f"more than the {margin:g} that may be lost is not ruled out"


def _order(table: Table) -> list[Column]:
    """The columns of a table, our own first, in the order in which they are written of."""
    own = [(name, metric) for name, metrics in METRICS.items() for metric in metrics]
    return [column for column in own if column in table] + sorted(table.keys() - set(own))


def _changed(column: Column, old: Values, new: Values, less_is_better: bool) -> Changed:
    sign = -1 if less_is_better else 1
    gains = {key: sign * round(new[key] - old[key], DECIMALS) for key in sorted(old.keys() & new)}
    ranked = sorted(gains, key=lambda key: -abs(gains[key]))
    lost, won = (tuple(key for key in ranked if way * gains[key] > 0) for way in (-1, 1))
    return Changed(*column, not less_is_better, len(gains), lost, won)


def _pair(key: str, before: Evaluation, after: Evaluation, item: EvaluationItem | None) -> Pair:
    sides = [side.answers.get(key) for side in (before, after)]
    said = next((one for one in (item, *sides) if one is not None), None)
    right = item.choices[item.answer] if item and item.answer is not None else said.reference if said else ""
    tables = before.table, after.table
    values = {" ".join(at): tuple(table.get(at, {}).get(key) for table in tables) for at in _order(before.table)}
    return Pair(
        id=key,
        category=item.category if item else "",
        question=said.prompt if said else UNKNOWN,
        reference=right,
        texts=tuple(one.text if one else None for one in sides),
        passages=tuple((one.passages if one else None) or () for one in sides),
        scores={name: (old, new) for name, (old, new) in values.items() if (old, new) != (None, None)},
    )
