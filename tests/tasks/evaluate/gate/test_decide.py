"""The decision of the gate on numbers alone: what passes, what is harm, and what is held because it is not shown."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.gate.decide import TRIES, Answer, Compared, Kind, Limits, decide, holm

LIMITS = Limits(level=0.95, resamples=2000, seed=1, share=0.1)
CLEAR = Compared("clear", "superiority", tuple(0.4 + 0.01 * number for number in range(40)), unseen=(-0.5, 0.5))


def spread(mean: float, width: float, count: int) -> tuple[float, ...]:
    """So many values in turn a width above the mean and below it."""
    return tuple(mean + (width if number % 2 else -width) for number in range(count))


def answer(question: Compared) -> Answer:
    return decide([question], LIMITS).answers[0]


def lost(values: tuple[float, ...], margin: float = 0.1, **fields: object) -> Compared:
    return Compared("lost", "non_inferiority", values, margin, **{"unseen": (-0.5, 0.5), **fields})


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [
        # 0.025 / 3 = 0.0083, 0.025 / 2 = 0.0125, 0.025: each in turn, the smallest first.
        ([0.02, 0.001, 0.012], [True, True, True]),
        ([0.02, 0.001, 0.013], [False, True, False]),
        ([0.009, 0.009, 0.009], [False, False, False]),
        ([0.025], [True]),
        ([], []),
    ],
)
def test_holm_asks_more_of_the_smallest_p_the_more_there_are(p_values: list[float], rejected: list[bool]) -> None:
    assert holm(p_values, 0.025) == rejected


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_all_that_bonferroni_rejects_and_nothing_above_alpha(p_values: list[float]) -> None:
    found = holm(p_values, 0.025)
    assert all(shown or p > 0.025 / len(p_values) for shown, p in zip(found, p_values, strict=True))
    assert all(p <= 0.025 for shown, p in zip(found, p_values, strict=True) if shown)


@pytest.mark.parametrize(("count", "shares", "unbounded"), [(5, False, False), (6, True, False), (10, True, False)])
def test_shares_that_all_gained_alike_show_it_from_six_on_and_what_has_no_bounds_does_not(
    count: int, shares: bool, unbounded: bool
) -> None:
    """Six signs alike have a chance of 1/64, five one of 1/32, and 1/40 is allowed."""
    gained = Compared("gained", "superiority", (1.0,) * count, unseen=(-1.0, 1.0), hard=True)
    assert answer(gained).passed is shares
    assert answer(replace(gained, hard=False, unseen=(-0.5, 0.5))).passed is unbounded


def test_what_nights_may_err_by_is_in_all_twice_what_the_first_may() -> None:
    """2.5%, then a quarter of it four times; 50 draws lie beyond each bound: of 2,000, and of 8,000."""
    limits = [LIMITS.after(spent) for spent in range(TRIES)]
    assert [one.alpha for one in limits] == pytest.approx([0.025, *[0.00625] * 4])
    assert sum(one.alpha for one in limits) == pytest.approx(0.05)
    assert [one.resamples for one in limits] == [2000, *[8000] * 4]


@pytest.mark.parametrize(
    ("spent", "margin", "short"),
    [
        # Of 60 items none of which was lost, 1 - alpha^(1/60) of all may be: 6.0% at 0.95, and 8.1% at 0.9875.
        (0, 0.07, ""),
        (1, 0.07, None),
        (4, 0.09, ""),
        (5, 0.09, "but nights have spent what they may err by"),
    ],
)
def test_what_passed_in_a_first_night_may_not_after_one_that_did_not(
    spent: int, margin: float, short: str | None
) -> None:
    limits = replace(LIMITS, resamples=20_000)
    found = decide([lost((0.0,) * 60, margin, unseen=(-1.0, 1.0), hard=True, spent=spent)], limits).answers[0]
    assert (found.passed, found.short, found.settling != "") == (short == "", short or "", short is None)
    assert found.found.high == pytest.approx(0.0811 if spent else 0.0596, abs=0.003)


def test_harm_is_shown_as_ever_however_many_nights_did_not_pass() -> None:
    """0.15 ± 0.2 lie 0.05 beyond 0.1: of 120 items 2.7 standard errors, p = 0.004 by t, and of 60 1.9, p = 0.03."""
    for spent in (0, TRIES):
        few, more = (lost(spread(0.15, 0.2, count), spent=spent) for count in (60, 120))
        assert [decide([one], LIMITS).outcome for one in (few, more)] == ["hold", "reject"]


@pytest.mark.parametrize(
    ("questions", "outcome"),
    [
        ([CLEAR, lost(spread(0.0, 0.05, 60))], "promote"),
        ([CLEAR, lost(spread(0.09, 0.3, 60))], "hold"),
        ([CLEAR, lost(spread(0.4, 0.3, 60))], "reject"),
        ([Compared("none", "superiority", (0.0,) * 60)], "hold"),
        ([Compared("floor", "floor", (1.0, 1.0, 0.0) * 40, 0.5, unseen=(0.0, 1.0), hard=True)], "promote"),
        ([Compared("floor", "floor", (1.0, 0.0, 0.0) * 40, 0.5, unseen=(0.0, 1.0), hard=True)], "reject"),
    ],
)
def test_all_pass_one_does_harm_or_neither(questions: list[Compared], outcome: str) -> None:
    assert decide(questions, LIMITS).outcome == outcome


def test_a_loss_that_alone_would_be_harm_is_none_among_many_that_could_have_come_out_so() -> None:
    worse = Compared("worse", "superiority", spread(-0.3, 1.0, 60))
    assert 0.025 / 6 < answer(worse).p_harm < 0.025
    assert decide([worse], LIMITS).outcome == "reject"
    unchanged = [lost(spread(0.0, 0.05, 60))] * 5
    assert decide([worse, *unchanged], LIMITS).outcome == "hold"


@pytest.mark.parametrize(("count", "passed"), [(5, False), (6, True)])
def test_six_items_that_all_gain_are_the_fewest_that_pass(count: int, passed: bool) -> None:
    """Of the 32 flips of five signs one does as well, 3.1%; of the 64 of six one, 1.6%; 2.5% are allowed."""
    found = answer(Compared("few", "superiority", spread(0.5, 0.05, count), unseen=(-0.1, 0.1)))
    assert found.passed is passed and found.found.low > 0
    assert passed or found.short == "too few items to show it (exact sign-flip test: p = 0.031)"


@pytest.mark.parametrize(("count", "passed"), [(40, False), (60, False), (90, True), (120, True)])
def test_items_none_of_which_changed_settle_only_what_unseen_losses_cannot_reach(count: int, passed: bool) -> None:
    """A share of 0.05 that loses 1 goes unseen by n items with a chance of 0.95^n: 2.5% at 71.9, so 72."""
    found = answer(lost((0.0,) * count, 0.05, unseen=(-1.0, 1.0), hard=True))
    assert found.passed is passed
    assert passed or "With about 72 items" in found.settling


def test_a_gain_in_the_mean_does_not_hide_that_many_items_lose_a_lot() -> None:
    """15 of 100 lose 1: Clopper and Pearson's upper bound is 0.235, and 0.1 may be; all in all 0.7 are gained."""
    found = answer(lost((1.0,) * 15 + (-1.0,) * 85))
    assert found.found.high < 0.1 and not found.passed
    assert (found.struck, found.struck_share) == (15, pytest.approx(0.2353, abs=1e-4))
    assert "15 items lose more than a catastrophe is set at" in found.short
    assert found.settling.startswith("More items like these would not let it pass")


def test_fewer_than_36_items_cannot_show_that_a_tenth_at_most_loses_a_lot() -> None:
    """1 − 0.025^(1/35) = 0.1000 and, of 36, 0.0974."""
    assert not answer(lost(spread(-1.0, 0.1, 34))).passed
    assert answer(lost(spread(-1.0, 0.1, 36))).passed


def test_items_of_few_groups_show_nothing_whatever_their_number() -> None:
    seven, eight = (tuple(str(number % count) for number in range(280)) for count in (7, 8))
    values = spread(-0.2, 0.1, 280)
    few = answer(lost(values, clusters=seven))
    assert (few.passed, few.p_harm) == (False, 1.0) and "items of 7 groups alone" in few.short
    assert answer(lost(values, clusters=eight)).clusters == 8


def test_groups_that_move_together_need_more_items_than_items_alone() -> None:
    """Twenty groups of five, all of a group alike: a fifth of the independent items."""
    values = tuple(0.07 + (0.2 if group % 2 else -0.2) for group in range(20) for _ in range(5))
    groups = tuple(str(group) for group in range(20) for _ in range(5))
    alone, together = answer(lost(values)), answer(lost(values, clusters=groups))
    needed = [int(found.settling.split()[2].replace(",", "")) for found in (alone, together)]
    assert needed[1] == pytest.approx(5 * needed[0], rel=0.1)


kinds: st.SearchStrategy[Kind] = st.sampled_from(["superiority", "non_inferiority", "floor"])


@given(kinds, st.lists(st.floats(-1, 1), min_size=8, max_size=20), st.floats(0.01, 0.5))
def test_nothing_passes_and_does_harm_and_equal_input_is_decided_alike(
    kind: Kind, values: list[float], margin: float
) -> None:
    question = Compared("any", kind, tuple(values), margin, unseen=(-0.5, 0.5))
    limits = Limits(0.95, 200, 1, 0.9)
    found = decide([question], limits)
    assert found == decide([question], limits)
    assert not (found.answers[0].passed and found.answers[0].harm)
    assert found.answers[0].passed == (found.outcome == "promote")
