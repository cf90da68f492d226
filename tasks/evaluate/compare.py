"""How sure is a difference between two models that answered the same items?

Paired bootstrap over items (Efron and Tibshirani 1993, chapter 14: BCa intervals; Berg-Kirkpatrick et al. 2012 for
its use on model scores). Items are taken as exchangeable: items that depend on one another make intervals too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import FlywheelError
from tasks.evaluate.measures import DECIMALS

# Below this many items a bootstrap interval says nothing.
SMALLEST_SAMPLE = 5


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
    """The mean of `values` with its BCa bootstrap interval; equal input gives equal output.

    Args:
        values: one number an item.
        level: coverage of the two-sided interval, e.g. 0.95.
        resamples: bootstrap samples drawn.
        seed: of the generator they are drawn with.

    Raises:
        ComparisonError: fewer than SMALLEST_SAMPLE values, or one that is not finite.
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
    result = bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        confidence_level=level,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = float(result.low), float(result.high)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ComparisonError("the bootstrap gave no interval: the values are too alike or too few")
    return _interval(estimate, low, high, len(values))


def paired_interval(
    minuend: Sequence[float], subtrahend: Sequence[float], *, level: float, resamples: int, seed: int
) -> Interval:
    """The mean of minuend − subtrahend, item by item; see mean_interval.

    Raises:
        ComparisonError: the two differ in length.
    """
    if len(minuend) != len(subtrahend):
        raise ComparisonError(f"{len(minuend)} values cannot be paired with {len(subtrahend)}")
    # Scores have DECIMALS decimals, and so have their differences: further digits are noise of the subtraction.
    differences = [round(left - right, DECIMALS) for left, right in zip(minuend, subtrahend, strict=True)]
    return mean_interval(differences, level=level, resamples=resamples, seed=seed)


def _interval(estimate: float, low: float, high: float, n: int) -> Interval:
    return Interval(round(estimate, DECIMALS), round(low, DECIMALS), round(high, DECIMALS), n)
