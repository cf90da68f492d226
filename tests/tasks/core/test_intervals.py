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
    mean_of,
    paired_interval,
    share_below,
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


def test_the_interval_of_skewed_differences_is_students_on_one_side_and_reaches_far_on_the_other() -> None:
    """One item in fifty gains 10: mean 0.2, standard error √(2·10²/50²/49·49/2) = 0.2, so t reaches 0.2 ± 0.402."""
    values = [10.0] + [0.0] * 49
    found, bootstrap = paired_interval(values, [0.0] * 50, **SETTINGS), mean_interval(values, **SETTINGS)
    assert found.low == pytest.approx(0.2 - 0.402, abs=0.001) and found.low < bootstrap.low
    assert found.high > bootstrap.high > 0.7


@pytest.mark.parametrize(("lost", "of", "share"), [(0, 60, 0.0596), (1, 40, 0.1316), (2, 120, 0.0589)])
def test_of_items_that_lose_all_or_nothing_the_upper_end_is_clopper_and_pearsons(
    lost: int, of: int, share: float
) -> None:
    """0 of 60: 1 − 0.025^(1/60) = 0.0596. 5 of 10 may be 0.813 of all (Clopper and Pearson 1934)."""
    values, drawn = [1.0] * lost + [0.0] * (of - lost), {"resamples": 40_000, "seed": 1}
    assert share_below(lost, of, 0.95) == pytest.approx(share, abs=1e-4)
    found = mean_of(values, **drawn, unseen=(-1.0, 1.0), hard=True).interval(0.95)
    assert found.high == pytest.approx(share, abs=0.004)
    assert share_below(5, 10, 0.95) == pytest.approx(0.8129, abs=1e-4)


def test_clusters_whose_items_are_alike_count_once_each() -> None:
    """1 to 5, each twice: as clusters the mean of 1 to 5, with an error of √0.5; as ten items of √(20/9/10)."""
    values, labels = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0], list("aabbccddee")
    drawn = {"resamples": 2000, "seed": 1}
    wide, narrow = mean_of(values, labels, **drawn), mean_of(values, **drawn)
    assert (wide.clusters, wide.error) == (5, pytest.approx(math.sqrt(0.5)))
    assert (narrow.clusters, narrow.error) == (10, pytest.approx(math.sqrt(20 / 90)))
    assert wide.interval(0.95).low <= 3 - 1.963 + 0.001


@given(st.lists(st.floats(-100, 100), min_size=5, max_size=30))
def test_items_that_are_all_clusters_of_their_own_have_the_interval_of_items(values: list[float]) -> None:
    drawn = {"resamples": 200, "seed": 1}
    labels = [str(number) for number in range(len(values))]
    assert mean_of(values, labels, **drawn).interval(0.9) == mean_of(values, **drawn).interval(0.9)


def test_what_is_known_to_be_possible_widens_the_interval_at_its_own_end_alone() -> None:
    values, drawn = [0.0, 1.0] * 20, {"resamples": 2000, "seed": 1}
    least, lower = mean_of(values, **drawn).interval(0.95), mean_of(values, **drawn, unseen=(-9, 1)).interval(0.95)
    assert lower.low < least.low and lower.high == least.high


def test_the_p_of_a_mean_is_students_or_that_of_the_draws_where_it_is_larger() -> None:
    """1 to 5 lie 3/0.7071 = 4.243 standard errors above 0: t with 4 degrees of freedom leaves 0.0066."""
    mean = mean_of([1.0, 2.0, 3.0, 4.0, 5.0], resamples=2000, seed=1)
    assert 0.0066 < mean.p_above(0.0) < 0.05 and mean.p_below(0.0) > 0.95
    assert (mean.p_above(3.0) >= 0.5, mean.p_below(3.0) >= 0.5) == (True, True)
    still = mean_of([0.25] * 10, resamples=999, seed=1)
    assert (still.p_above(0.2), still.p_above(0.25), still.p_below(0.25)) == (0.001, 1.0, 1.0)


def test_an_unseen_group_of_few_is_reckoned_with_farther_out_than_one_of_many() -> None:
    """One pair sums to 10, the others to 1 or -1: below 40 of them the excess of 9 counts four times, above twice.

    The upper end is nearly all of that tail, 36 in place of 18, so it lies nearly twice as far.
    """
    sums = [10.0, *[-1.0, 1.0] * 20][:40]

    def reach_of(count: int) -> float:
        values = [total / 2 for total in sums[:count] for _ in range(2)]
        labels = [str(pair) for pair in range(count) for _ in range(2)]
        found = mean_of(values, labels, resamples=4000, seed=1)
        return found.interval(0.95).high - found.estimate

    assert 1.8 < reach_of(39) / reach_of(40) < 2.1


def test_one_cluster_alone_is_refused() -> None:
    with pytest.raises(ComparisonError, match="of one cluster alone"):
        mean_of([1.0, 2.0, 3.0, 4.0, 5.0], ["a"] * 5, resamples=1000, seed=1)


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
