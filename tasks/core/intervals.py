"""How sure is a difference between two models that answered the same items?

Its interval is the wider, at each end, of the paired BCa bootstrap (Efron and Tibshirani 1993, chapter 14; for model
scores Berg-Kirkpatrick et al. 2012) and Student's t; below EXACT_BELOW items the gate asks a sign-flip test as well.
Limits (docs/evaluation.md): items that depend on one another, and losses rarer than a sample shows.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.errors import FlywheelError
from tasks.core.records import DECIMALS

# Below this many items an interval says nothing.
SMALLEST_SAMPLE = 5
POWER = 0.8  # with which items are said to be enough
# Below this many items an interval leans on a shape of the differences that so few cannot show.
EXACT_BELOW = 40


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

    if len(values) < SMALLEST_SAMPLE:
        raise ComparisonError(f"{len(values)} items are too few to compare; {SMALLEST_SAMPLE} are needed at least")
    if not all(map(math.isfinite, values)):
        raise ComparisonError("a value is not a finite number")
    estimate = math.fsum(values) / len(values)
    if min(values) == max(values):
        # Every resample has the same mean; BCa would divide nought by nought.
        return _interval(estimate, values[0], values[0], len(values))
    drawn = {"n_resamples": resamples, "method": "BCa", "rng": np.random.default_rng(seed)}
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


def paired_interval(
    minuend: Sequence[float], subtrahend: Sequence[float], *, level: float, resamples: int, seed: int
) -> Interval:
    """The mean of minuend − subtrahend, item by item, with its interval; see the top of this module.

    Raises ComparisonError: the two differ in length, or see mean_interval.
    """
    from scipy.stats import sem, t

    values = differences(minuend, subtrahend)
    found = mean_interval(values, level=level, resamples=resamples, seed=seed)
    if min(values) == max(values):
        return found
    low, high = t(len(values) - 1, loc=found.estimate, scale=sem(values)).interval(level)
    return _interval(found.estimate, min(found.low, float(low)), max(found.high, float(high)), len(values))


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


def items_needed(values: Sequence[float], distance: float, level: float) -> int:
    """How many items of this spread show a mean `distance` away from a bound with a power of 80%."""
    return max(1, math.ceil((reach(values, level) / distance) ** 2))


def _interval(estimate: float, low: float, high: float, n: int) -> Interval:
    return Interval(round(estimate, DECIMALS), round(low, DECIMALS), round(high, DECIMALS), n)
