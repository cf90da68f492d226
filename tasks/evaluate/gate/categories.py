"""Right answers by category: the collapse of one may not hide behind what the others gained.

A mean over all items lets forty answers gained on one subject pay for eight lost on another. So each category is asked
by itself whether it lost, by an exact sign test (McNemar 1947) of its items that changed; six lost and none won are the
fewest that show it. It only blocks: a category that is too small shows nothing, and is guarded by the mean alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.core.params import GateParams
from tasks.core.records import DECIMALS, EvaluationItem
from tasks.evaluate.gate.scores import Table, Values
from tasks.evaluate.gate.verdict import Category, Verdict
from tasks.evaluate.gate.words import COLLAPSED
from tasks.evaluate.scoring.questions import FACTS

RIGHT = (FACTS, "right")


def by_category(labels: Mapping[str, str], after: Values, before: Values, alpha: float) -> tuple[Category, ...]:
    """What became of the right answers of each category, the most lost first; values above 0 are right.

    `labels`: item id → its category; items that both sides have count. `alpha`: how often a category whose items are
    lost and won alike may be taken for one that collapsed.
    """
    groups: dict[str, list[str]] = {}
    for key in sorted(before.keys() & after & labels.keys()):
        groups.setdefault(labels[key], []).append(key)
    found = [_category(name, ids, after, before, alpha) for name, ids in groups.items()]
    return tuple(sorted(found, key=lambda one: (len(one.won) - len(one.lost), -len(one.lost), one.name)))


def _category(name: str, ids: Sequence[str], after: Values, before: Values, alpha: float) -> Category:
    from scipy.stats import binomtest

    lost, won = (tuple(key for key in ids if way * (after[key] - before[key]) > 0) for way in (-1, 1))
    p = float(binomtest(len(lost), len(lost) + len(won), alternative="greater").pvalue) if lost else 1.0
    old, new = (sum(side[key] > 0 for key in ids) for side in (before, after))
    return Category(name, len(ids), old, new, lost, won, round(p, DECIMALS), p <= alpha)


def blocked_by_categories(
    verdict: Verdict, items: Sequence[EvaluationItem], after: Table, before: Table, settings: GateParams
) -> Verdict:
    """The verdict with its categories; held where it would promote although one collapsed."""
    labels = {item.id: item.category for item in items if item.category}
    categories = by_category(labels, after.get(RIGHT, {}), before.get(RIGHT, {}), (1 - settings.level) / 2)
    collapsed = [one for one in categories if one.collapsed]
    reasons = [
        f"Right answers on {one.name} fall from {one.before} to {one.after} of {one.n}: {len(one.lost)} lost, "
        f"{len(one.won)} won (exact sign test: p = {one.p:.3f})."
        for one in collapsed
    ]
    held = verdict.outcome == "promote" and bool(collapsed)
    first, *rest = verdict.reasons
    return verdict.model_copy(
        update={
            "outcome": "hold" if held else verdict.outcome,
            "categories": categories,
            "reasons": (COLLAPSED if held else first, *reasons, *rest),
        }
    )
