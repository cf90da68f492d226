"""What both sides scored, and under which conditions, as the gate reads it: it fails closed.

Scores that are missing, too many, doubled, not finite, of other models than those at hand, or evaluated under unequal
conditions are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.core.benchmarks import Benchmark
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of
from tasks.core.records import EvaluationItem, Score, read_jsonl
from tasks.evaluate.gate.decide import FEWEST_CLUSTERS
from tasks.evaluate.scoring.questions import FACTS, FEEDBACK, METRICS
from tasks.evaluate.scoring.subject import Subject, Who, evaluation_of

Values = dict[str, float]
Table = dict[tuple[str, str], Values]


class NoVerdict(FlywheelError):
    """No verdict can be given on these scores."""


def ids_of(items: Sequence[EvaluationItem]) -> dict[str, frozenset[str]]:
    """Set → ids of its items; under FACTS those that have key facts."""
    names = dict.fromkeys(item.set for item in items)
    found = {name: frozenset(item.id for item in items if item.set == name) for name in names}
    with_facts = frozenset(item.id for item in items if item.facts)
    return found | ({FACTS: with_facts} if with_facts else {})


def groups_of(items: Sequence[EvaluationItem]) -> dict[str, str]:
    """Item id → what it shares with the items that its answer depends on.

    Subjects of MMLU and of the domain are its items' categories, and a correction's group is the question it was given
    to: two users may correct one. A question that rests on several entries is of no one subject. The topics of a set
    with fewer than FEWEST_CLUSTERS (general dialogue, kinds of what is declined, harmful requests) are no sample of
    topics: what is shown holds for these, of which the items are taken as independent.
    """
    found = {}
    for name in dict.fromkeys(item.set for item in items):
        own = [item for item in items if item.set == name]
        labels = [[*item.paraphrases, item.prompt][0] if name == FEEDBACK else item.category for item in own]
        alone = len(set(labels)) < FEWEST_CLUSTERS and name != FEEDBACK
        for item, label in zip(own, labels, strict=True):
            lone = alone or not label or (name == "domain" and len(item.source) > 2)
            found[item.id] = item.id if lone else label
    return found


def read_scores(
    who: Who,
    expected: Mapping[str, frozenset[str]],
    sets: Sequence[Benchmark] = (),
    digests: Mapping[str, str] | None = None,
) -> Table:
    """One side's scores; `digests` are those of the items of the domain's benchmarks.

    Raises NoVerdict: a score is missing, doubled, unexpected or no finite number.
    """
    path, remedy = evaluation_of(who) / "scores.jsonl", _remedy(who)
    if not path.is_file():
        raise NoVerdict(f"{path} is missing: the evaluation of the {who} did not end well; {remedy}")
    scores, bad = read_jsonl(path, Score)
    if bad:
        raise NoVerdict(f"{path}:{bad[0].line}: {bad[0].cause}; {remedy}")
    found = {one.name: frozenset(score.id for score in scores if score.set == one.name) for one in sets}
    for name, ids in found.items():
        if digest_of(sorted(ids)) != (digests or {})[name]:
            raise NoVerdict(f"{path}: {name} has other items than were asked; {remedy}")
    metrics = METRICS | {one.name: (one.metric,) for one in sets}
    return table_of(scores, {**expected, **found}, path.as_posix(), remedy, metrics)


def _remedy(who: str) -> str:
    return f"run the stage evaluate_{'candidate' if who == 'candidate' else 'champion'} again"


def table_of(
    scores: Sequence[Score],
    expected: Mapping[str, frozenset[str]],
    where: str,
    remedy: str,
    metrics: Mapping[str, tuple[str, ...]] = METRICS,
) -> Table:
    """(set, metric) → item id → value, for exactly the metrics of the expected items; see read_scores."""
    table: Table = {(name, metric): {} for name in expected for metric in metrics[name]}
    for score in scores:
        column = table.get((score.set, score.metric))
        if column is None:
            raise NoVerdict(f"{where}: nobody asked for {score.metric} on {score.set}; {remedy}")
        if score.id in column:
            raise NoVerdict(f"{where}: item {score.id[:12]} has {score.metric} twice; {remedy}")
        column[score.id] = score.value
    for (name, metric), column in table.items():
        missing, extra = expected[name] - column.keys(), column.keys() - expected[name]
        if missing or extra:
            raise NoVerdict(
                f"{where}: {metric} on {name} lacks {len(missing)} items and has {len(extra)} that are not in the "
                f"evaluation set; {remedy}"
            )
    return table


def read_conditions(who: Who) -> dict[str, Any]:
    """How one side was evaluated. Raises NoVerdict: the file is missing or not a table."""
    path = evaluation_of(who) / "conditions.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError) as error:
        raise NoVerdict(f"{path} cannot be read ({error}); {_remedy(who)}") from None


def check_conditions(after: dict[str, Any], before: dict[str, Any], candidate: Subject, champion: Subject) -> None:
    """Raises NoVerdict unless both sides were evaluated alike and are the models at hand under their own prompts."""
    for conditions, subject in ((after, candidate), (before, champion)):
        if (conditions.get("model"), conditions.get("system")) != (subject.identity, subject.system):
            raise NoVerdict(
                f"the scores of the {subject.who} are not of the model at hand under its own system prompt; "
                f"{_remedy(subject.who)}"
            )
    keys = (after.keys() | before.keys()) - {"model", "system"}
    differing = sorted(key for key in keys if after.get(key) != before.get(key))
    if "tokenizer" in differing:
        raise NoVerdict(
            "candidate and champion do not cut texts alike (their tokenizers or chat templates differ), so their nats "
            "per token cannot be compared; go back to the champion's base model in domain.yaml"
        )
    if differing:
        raise NoVerdict(
            f"candidate and champion were evaluated under different conditions ({', '.join(differing)}); "
            "run both evaluation stages again"
        )


def check_sets(conditions: dict[str, Any], definitions: Mapping[str, str]) -> None:
    """Raises NoVerdict unless the benchmarks that were asked are those of evaluation.yaml, with its data as is."""
    asked = {name: one["definition"] for name, one in (conditions.get("sets") or {}).items()}
    changed = sorted(name for name in asked.keys() | definitions.keys() if asked.get(name) != definitions.get(name))
    if changed:
        raise NoVerdict(
            f"the benchmarks {', '.join(changed)} are others than were asked; run both evaluation stages again"
        )
