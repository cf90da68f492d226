"""How fine a difference can the items of a set settle? From two evaluations of the same items.

A margin m is settled with a power of 80%, where nothing is lost, by ((z((1 + level) / 2) + z(0.8)) · sd / m)² items, sd
being the spread of the paired differences (Chow, Shao and Wang 2008, chapter 3). Limits: two models that differ
little spread little, so the two should differ as a candidate will from its champion; items count as independent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import FlywheelError
from tasks.core.intervals import differences, items_needed, paired_interval, reach
from tasks.core.params import GateParams
from tasks.core.records import DECIMALS, Score, read_own_jsonl


class PilotError(FlywheelError):
    """Nothing can be said of a set from these two evaluations."""


@dataclass(frozen=True)
class Pilot:
    """One metric of a set; `half_width`: of the gate's interval, were no items alike; `margin`: the least it settles.

    `needed`: how many items the margin that was asked for needs; None where none was.
    """

    metric: str
    items: int
    spread: float
    half_width: float
    margin: float
    needed: int | None


def pilot_of(
    name: str,
    after: Path,
    before: Path,
    settings: GateParams,
    seed: int,
    items: int | None = None,
    margin: float | None = None,
) -> list[Pilot]:
    """Each metric of the set `name`, from two files of scores; `items` asks for so many items instead of those at hand.

    Raises PilotError: the set is in neither, or the two were measured on different items.
    """
    columns = [_columns(read_own_jsonl(path, Score)) for path in (after, before)]
    metrics = sorted(metric for of, metric in columns[0].keys() & columns[1].keys() if of == name)
    if not metrics:
        known = ", ".join(sorted({of for of, _ in columns[0]}))
        raise PilotError(f"the two evaluations have no set {name} in common; there are {known or 'none'}")
    found = []
    for metric in metrics:
        new, old = (column[name, metric] for column in columns)
        if new.keys() != old.keys():
            raise PilotError(f"{name}: the two evaluations are of different items; evaluate both again")
        pairs = [[side[key] for key in sorted(new)] for side in (new, old)]
        found.append(_pilot(metric, pairs[0], pairs[1], settings, seed, items, margin))
    return found


def _pilot(
    metric: str,
    after: Sequence[float],
    before: Sequence[float],
    settings: GateParams,
    seed: int,
    items: int | None,
    margin: float | None,
) -> Pilot:
    from scipy.stats import norm

    changes = differences(after, before)
    spread = statistics.stdev(changes)
    count = items or len(changes)
    half = float(norm.ppf((1 + settings.level) / 2)) * spread / math.sqrt(count)
    if items is None:
        interval = paired_interval(after, before, level=settings.level, resamples=settings.resamples, seed=seed)
        half = (interval.high - interval.low) / 2
    needed = None if margin is None else items_needed(changes, margin, settings.level)
    margins = [round(value, DECIMALS) for value in (spread, half, reach(changes, settings.level) / math.sqrt(count))]
    return Pilot(metric, count, margins[0], margins[1], margins[2], needed)


def _columns(scores: Sequence[Score]) -> Mapping[tuple[str, str], dict[str, float]]:
    found: dict[tuple[str, str], dict[str, float]] = {}
    for score in scores:
        found.setdefault((score.set, score.metric), {})[score.id] = score.value
    return found
