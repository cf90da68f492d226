"""Paired bootstrap intervals, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.intervals import (
    ComparisonError,
    fewest_items,
    items_needed,
    mean_interval,
    paired_interval,
    sign_flip_p,
)

SETTINGS = {"level": 0.95, "resamples": 4000, "seed": 1}


def test_the_interval_of_equal_differences_is_that_difference() -> None:
    """Each of five items gains 0.25, so every resample's mean is 0.25."""
    found = paired_interval([1.25, 2.25, 3.25, 4.25, 5.25], [1.0, 2.0, 3.0, 4.0, 5.0], **SETTINGS)
    assert (found.estimate, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 5)


def test_the_interval_of_many_coin_flips_is_the_normal_one() -> None:
    """400 differences, half 0 and half 1: mean 0.5, sd 0.5, standard error 0.5/√400 = 0.025; 0.5 ± 1.96·0.025."""
    found = mean_interval([0.0, 1.0] * 200, **SETTINGS)
    assert found.estimate == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.006)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.006)


def test_pairing_takes_out_what_the_items_share() -> None:
    """Values spread from 0 to 99, gains alternate 0.9 and 1.1: only the gains' sd of 0.1 counts, 1 ± 1.96·0.1/√100."""
    before = [float(value) for value in range(100)]
    after = [value + (0.9 if index % 2 else 1.1) for index, value in enumerate(before)]
    found = paired_interval(after, before, **SETTINGS)
    assert found.estimate == pytest.approx(1.0)
    assert found.low == pytest.approx(1 - 0.0196, abs=0.004)
    assert found.high == pytest.approx(1 + 0.0196, abs=0.004)


def test_a_skewed_sample_gets_a_skewed_interval() -> None:
    """One item in fifty gains 10: mean 0.2. A symmetric interval would reach as far down as up; BCa reaches up."""
    found = mean_interval([10.0] + [0.0] * 49, **SETTINGS)
    assert found.estimate == pytest.approx(0.2)
    assert found.high - found.estimate > 2 * (found.estimate - found.low)


def test_the_interval_of_a_few_differences_is_no_narrower_than_students() -> None:
    """1 to 5: mean 3, sd √2.5, standard error √0.5 = 0.7071, t(0.975; 4) = 2.776, so 3 ± 1.963; BCa alone: ± 1.4."""
    found = paired_interval([1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5, **SETTINGS)
    assert found.low == pytest.approx(3 - 1.963, abs=0.001)
    assert found.high == pytest.approx(3 + 1.963, abs=0.001)


def test_the_interval_of_skewed_differences_is_students_on_one_side_and_the_bootstraps_on_the_other() -> None:
    """One item in fifty gains 10: mean 0.2, standard error √(2·10²/50²/49·49/2) = 0.2, so t reaches 0.2 ± 0.402."""
    values = [10.0] + [0.0] * 49
    found, bootstrap = paired_interval(values, [0.0] * 50, **SETTINGS), mean_interval(values, **SETTINGS)
    assert found.low == pytest.approx(0.2 - 0.402, abs=0.001) and found.low < bootstrap.low
    assert found.high == bootstrap.high > 0.7


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ([1.0, 2.0, 3.0], 1 / 8),  # no other choice of signs reaches 6
        ([3.0, 2.0, -1.0], 2 / 8),  # 4 is reached by 4 and 6
        ([0.0, 1.0, 0.0, 2.0, 3.0], 1 / 8),  # items that did not change say nothing
        ([0.5, 0.5, -0.5], 4 / 8),  # a tie of one against two: 3 · 0.5 once, 0.5 three times
        ([0.1, 0.2, -0.3], 5 / 8),  # sum 0 as decimals, not as floats: 0.6, 0.4, 0.2 and 0 twice
        ([-1.0, -2.0], 1.0),
        ([0.0] * 30, 1.0),
        ([0.25] * 30, 1.0),  # no spread: nothing is known of the items that were not asked
        ([1.0], 1.0),
        ([], 1.0),
    ],
)
def test_the_sign_flip_test_counts_every_choice_of_signs(values: list[float], share: float) -> None:
    assert sign_flip_p(values) == share


def test_of_39_items_all_half_a_billion_of_thousands_of_flips_are_counted() -> None:
    """26 of 39 changes of equal size go up: the sign test, so the tail of 39 throws of a coin from 26 heads on."""
    share = sum(math.comb(39, heads) for heads in range(26, 40)) / 2**39
    assert sign_flip_p([1.0] * 26 + [-1.0] * 13) == share


def test_five_items_can_show_nothing_at_a_level_of_95_percent() -> None:
    """One of 2⁵ flips is 3.1%, one of 2⁶ is 1.6%; 2.5% are left on one side."""
    assert (fewest_items(0.6), fewest_items(0.9), fewest_items(0.99)) == (5, 5, 8)
    assert (fewest_items(0.95), sign_flip_p([1.0, 2.0, 3.0, 4.0, 5.0])) == (6, 1 / 32)


@pytest.mark.parametrize("values", [[], [1.0] * 4, [1.0, 2.0, 3.0, 4.0, math.nan], [1.0, 2.0, 3.0, 4.0, math.inf]])
def test_values_that_say_nothing_are_refused(values: list[float]) -> None:
    with pytest.raises(ComparisonError):
        mean_interval(values, **SETTINGS)


def test_values_that_are_not_in_pairs_are_refused() -> None:
    with pytest.raises(ComparisonError, match="cannot be paired"):
        paired_interval([1.0] * 6, [1.0] * 5, **SETTINGS)


@given(st.lists(st.floats(-100, 100), min_size=5, max_size=30))
def test_an_interval_is_finite_and_within_the_values(values: list[float]) -> None:
    """A mean of resampled values lies between the smallest and the largest of them."""
    try:
        found = mean_interval(values, level=0.9, resamples=200, seed=0)
    except ComparisonError:
        return
    slack = 1e-6
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


def test_the_items_that_a_distance_needs_grow_with_the_square_of_the_spread_over_it() -> None:
    """-1 and 1 in equal numbers: of 100 the variance is 100/99. (1.959964 + 0.841621)^2 = 7.84888; times 100/99 / 0.25
    is 31.713 at a distance of 0.5, and four times as much, 126.85, at half of it."""
    values = [-1.0, 1.0] * 50
    assert items_needed(values, 0.5, 0.95) == 32
    assert items_needed(values, 0.25, 0.95) == 127
    assert items_needed(values, 100.0, 0.95) == 1
