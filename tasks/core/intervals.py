"""How sure is a difference between two models that answered the same items?

Its interval is the wider, at each end, of two over the clusters that items come in (an item alone is one):

- Student's t with the cluster-robust standard error (Liang and Zeger 1986);
- Gaffke's bound (2005; Learned-Miller and Thomas 2019, arXiv 1905.06208): the mean under exponential weights, where
  one item more stands for what nobody asked. Where values cannot lie beyond that item, and are 0 and 1, it is Clopper
  and Pearson's bound. Elsewhere it lies two standard deviations out at least (three where groups are few), and farther
  where one tail is longer.

Below EXACT_BELOW clusters the gate asks a sign-flip test as well. A single model's scores have a BCa bootstrap interval
(Efron and Tibshirani 1993, chapter 14). What holds, and what does not: docs/evaluation.md.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.records import DECIMALS

# Below this many items an interval says nothing.
SMALLEST_SAMPLE = 5
POWER = 0.8  # with which items are said to be enough
# Below this many clusters an interval leans on a shape of the differences that so few cannot show.
EXACT_BELOW = 40
# How far out the item that nobody asked lies at least: in standard deviations, and in times of the excess of one tail
# over the other. By simulation (tests/bench/bench_gate.py): less lets rare losses through, more costs power. Groups of
# items are often skewed as their items are, and fewer than EXACT_BELOW show little of it.
SPREAD, SKEW = 2.0, 2.0
FEW_SPREAD, FEW_SKEW = 3.0, 4.0
WEIGHTS = 2**22  # drawn at a time: 32 MB


class ComparisonError(FlywheelError):
    """The values cannot be compared: too few, not finite, or not in pairs."""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` items with its two-sided interval, in the unit of the values."""

    estimate: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float], *, level: float, resamples: int, seed: int) -> Interval:
    """The mean of `values` with its two-sided BCa bootstrap interval; equal input gives equal output.

    Raises ComparisonError: fewer than SMALLEST_SAMPLE values, or one that is not finite.
    """
    import numpy as np
    from scipy.stats import bootstrap

    _check(values)
    estimate = math.fsum(values) / len(values)
    if min(values) == max(values):
        # Every resample has the same mean; BCa would divide nought by nought.
        return _interval(estimate, values[0], values[0], len(values))
    batch = max(1, WEIGHTS // len(values))
    drawn = {"n_resamples": resamples, "method": "BCa", "rng": np.random.default_rng(seed), "batch": batch}
    found = bootstrap((np.asarray(values, dtype=float),), np.mean, confidence_level=level, **drawn)
    low, high = map(float, found.confidence_interval)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ComparisonError("the bootstrap gave no interval: the values are too alike or too few")
    return _interval(estimate, low, high, len(values))


def differences(minuend: Sequence[float], subtrahend: Sequence[float]) -> list[float]:
    """minuend − subtrahend, item by item. Raises ComparisonError: the two differ in length."""
    if len(minuend) != len(subtrahend):
        raise ComparisonError(f"{len(minuend)} values cannot be paired with {len(subtrahend)}")
    # Scores have DECIMALS decimals, and so have their differences: further digits are noise of the subtraction.
    return [round(left - right, DECIMALS) for left, right in zip(minuend, subtrahend, strict=True)]


@dataclass(frozen=True)
class Mean:
    """A mean with its cluster-robust standard error, and what it may be instead: draws for either end."""

    estimate: float
    error: float
    n: int
    clusters: int
    lows: Any
    highs: Any

    def interval(self, level: float) -> Interval:
        """The wider, at each end, of Student's t and the draws, two-sided at `level`."""
        import numpy as np
        from scipy.stats import t

        half = float(t.ppf((1 + level) / 2, self.clusters - 1)) * self.error
        low = float(np.quantile(self.lows, (1 - level) / 2))
        high = float(np.quantile(self.highs, (1 + level) / 2))
        return _interval(self.estimate, min(low, self.estimate - half), max(high, self.estimate + half), self.n)

    def p_below(self, bound: float) -> float:
        """The one-sided p of "the mean is `bound` or more" against "it is below": the larger of the two."""
        return self._p(bound - self.estimate, int((self.highs >= bound).sum()))

    def p_above(self, bound: float) -> float:
        """The same of "the mean is `bound` or less" against "it is above"."""
        return self._p(self.estimate - bound, int((self.lows <= bound).sum()))

    def _p(self, distance: float, reached: int) -> float:
        from scipy.stats import t

        by_t = float(t.sf(distance / self.error, self.clusters - 1)) if self.error else float(distance <= 0)
        return max(by_t, float(1 + reached) / (1 + len(self.lows)))


def mean_of(
    values: Sequence[float],
    clusters: Sequence[str] = (),
    *,
    resamples: int,
    seed: int,
    unseen: tuple[float, float] | None = None,
    hard: bool = False,
) -> Mean:
    """The mean of `values`, of which those with one label in `clusters` depend on one another; () if none do.

    `unseen` is the lowest and the highest value that an item nobody asked is reckoned with; `hard` says that none lies
    beyond. Memory stays at some 40 MB. Raises ComparisonError: too few values or clusters, or one is not finite.
    """
    import numpy as np

    _check(values)
    names = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    places = [names[name] for name in clusters] if clusters else range(len(values))
    count = len(names) or len(values)
    if count < 2:
        raise ComparisonError("items of one cluster alone say nothing of others")
    estimate, n = math.fsum(values) / len(values), len(values)
    sizes = np.bincount(places).astype(float)
    beyond = np.bincount(places, weights=np.asarray(values, dtype=float) - estimate)
    if min(values) == max(values):
        beyond[:] = 0.0  # no more than rounding
    spread = math.sqrt(float(beyond @ beyond) / (count - 1))
    deviations, times = (FEW_SPREAD, FEW_SKEW) if count < min(EXACT_BELOW, n) else (SPREAD, SKEW)
    skew = (1.0 if hard else times) * float(beyond.max() + beyond.min())
    least = 0.0 if hard else deviations * spread
    lowest, highest = unseen or (estimate, estimate)
    tails = min(lowest - estimate, skew, -least), max(highest - estimate, skew, least)
    ends: tuple[list[Any], list[Any]] = ([], [])
    for weights, more in weights_of(count, resamples, seed):
        shift, whole = weights @ beyond, weights @ sizes + more
        for end, tail in zip(ends, tails, strict=True):
            end.append(estimate + (shift + more * tail) / whole)
    lows, highs = map(np.concatenate, ends)
    return Mean(estimate, math.sqrt(count) * spread / n, n, count, lows, highs)


def weights_of(count: int, resamples: int, seed: int) -> Iterator[tuple[Any, Any]]:
    """Exponential weights of `count` clusters and of one more, for as many resamples at a time as memory allows."""
    import numpy as np

    generator, rows = np.random.default_rng(seed), max(1, WEIGHTS // count)
    for start in range(0, resamples, rows):
        weights = generator.standard_exponential((min(rows, resamples - start), count))
        yield weights, generator.standard_exponential(len(weights))


def paired_interval(
    minuend: Sequence[float], subtrahend: Sequence[float], *, level: float, resamples: int, seed: int
) -> Interval:
    """The mean of minuend − subtrahend, item by item, with its interval; see the top of this module.

    Raises ComparisonError: the two differ in length, or see mean_of.
    """
    return mean_of(differences(minuend, subtrahend), resamples=resamples, seed=seed).interval(level)


def share_below(count: int, n: int, level: float) -> float:
    """Clopper and Pearson's (1934) upper bound on a share of which `count` of `n` were seen, two-sided at `level`."""
    from scipy.stats import beta

    return float(beta.ppf((1 + level) / 2, count + 1, n - count)) if count < n else 1.0


def sign_flip_p(values: Sequence[float]) -> float:
    """Of all 2**n ways to choose the signs of `values`, the share whose sum is at least theirs (Fisher 1935, §21).

    That is the exact p of "their mean is 0" against "it is above 0", where they spread evenly around their mean.
    Values of 0 have no sign and say nothing. Values without any spread count as p = 1: that so few are all alike says
    little about those that were not asked. Takes a second and 30 MB for EXACT_BELOW values, twice as much for two more.
    """
    import numpy as np

    if not values or min(values) == max(values):
        return 1.0
    # Whole numbers, so that equal sums are equal.
    units = [round(value * 10**DECIMALS) for value in values if round(value * 10**DECIMALS)]
    left, right = np.zeros(1), np.zeros(1)  # the sums of either half under every choice of signs
    for unit in units[::2]:
        left = np.concatenate([left - unit, left + unit])
    for unit in units[1::2]:
        right = np.concatenate([right - unit, right + unit])
    right.sort()
    reached = right.size - np.searchsorted(right, sum(units) - left)
    return float(reached.sum()) / 2 ** len(units)


def fewest_items(level: float) -> int:
    """The fewest items that can pass: sign_flip_p has to reach what a two-sided `level` leaves on one side."""
    return max(SMALLEST_SAMPLE, math.ceil(math.log2(2 / (1 - level))))


def reach(values: Sequence[float], level: float) -> float:
    """How far from a bound the mean of one item of this spread has to lie to be shown with a power of 80%.

    For the mean of n items divide it by √n: (z((1 + level) / 2) + z(0.8)) · sd / √n (Chow, Shao and Wang 2008, chapter
    3). Items count as independent.
    """
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2) + norm.ppf(POWER)) * statistics.stdev(values)


def items_needed(values: Sequence[float], distance: float, level: float, inflation: float = 1.0) -> int:
    """How many items of this spread show a mean `distance` away from a bound with a power of 80%.

    `inflation`: how many times the variance of the mean is what it would be without clusters.
    """
    return max(1, math.ceil(inflation * (reach(values, level) / distance) ** 2))


def _check(values: Sequence[float]) -> None:
    if len(values) < SMALLEST_SAMPLE:
        raise ComparisonError(f"{len(values)} items are too few to compare; {SMALLEST_SAMPLE} are needed at least")
    if not all(map(math.isfinite, values)):
        raise ComparisonError("a value is not a finite number")


def _interval(estimate: float, low: float, high: float, n: int) -> Interval:
    return Interval(round(estimate, DECIMALS), round(low, DECIMALS), round(high, DECIMALS), n)
