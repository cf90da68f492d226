"""What the evaluation sets are too small to show, found before anything is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tasks.core.intervals import SMALLEST_SAMPLE
from tasks.core.params import GateParams
from tasks.evaluate.gate.decide import decide
from tasks.evaluate.gate.requirements import ELSEWHERE, NIGHT, Requirement
from tasks.evaluate.gate.verdict import compared, limits_of

ENOUGH = 1 << 12  # items; what so many cannot show, the settings ask too much of


def too_small(items: Mapping[str, Collection[str]], settings: GateParams) -> list[str]:
    """The sets (name → ids of its items) by which every candidate is held, one sentence each.

    A criterion is one that not even a candidate passes that loses nothing on any item. Real ones need more.
    """
    needed: dict[str, int] = {}
    for one in NIGHT:
        count = len(items.get(one.set, ()))
        if one.kind == "non_inferiority" and count and not _passes(one, count, settings):
            needed[one.set] = max(_fewest(one, settings), needed.get(one.set, 0))
    held = {one.set: "every release is held" for one in ELSEWHERE}
    return [
        f"evaluation set {name}: {len(items[name])} items cannot show that little is lost, even where nothing is, so "
        f"{held.get(name, 'every night that goes on from a champion is held')}; {few:,} items could, at least"
        for name, few in needed.items()
    ]


def _fewest(one: Requirement, settings: GateParams) -> int:
    """With how many items a candidate passes that loses nothing on any."""
    low, high = 0, ENOUGH
    while high - low > 1:
        middle = (low + high) // 2
        if _passes(one, middle, settings):
            high = middle
        else:
            low = middle
    return high


def _passes(one: Requirement, count: int, settings: GateParams) -> bool:
    if count < SMALLEST_SAMPLE:
        return False
    before = dict.fromkeys(map(str, range(count)), 0.0)
    # As good as nothing; values without any spread are none to judge by (intervals.sign_flip_p).
    after = {key: 1e-6 * (place % 2) for place, key in enumerate(before)}
    column = (one.set, one.metric)
    question = compared(one, {column: after}, {column: before}, settings, {})
    return decide([question], limits_of(settings, seed=0)).answers[0].passed
