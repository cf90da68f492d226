"""One category's collapse: when it is shown, and what it does to a verdict."""

from __future__ import annotations

import pytest

from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, make_item
from tasks.evaluate.gate.categories import blocked_by_categories, by_category
from tasks.evaluate.gate.scores import Table
from tasks.evaluate.gate.verdict import Side, Verdict

ALPHA = 0.025
RIGHT = ("facts", "right")


def category(name: str, lost: int, won: int, kept: int) -> tuple[list[EvaluationItem], list[float], list[float]]:
    """Items of one category with so many right answers lost, won and kept: (items, before, after)."""
    before = [1.0] * lost + [0.0] * won + [1.0] * kept
    after = [0.0] * lost + [1.0] * won + [1.0] * kept
    items = [
        make_item(set="domain", prompt=f"{name} {place}?", reference="yes", category=name, facts=(("yes",),))
        for place in range(len(before))
    ]
    return items, before, after


def joined(*parts: tuple[list[EvaluationItem], list[float], list[float]]) -> tuple[list[EvaluationItem], Table, Table]:
    items = [item for part in parts for item in part[0]]
    sides = [[value for part in parts for value in part[place]] for place in (1, 2)]
    before, after = ({RIGHT: {item.id: value for item, value in zip(items, side, strict=True)}} for side in sides)
    return items, after, before


def verdict_of(outcome: str) -> Verdict:
    side = Side(version=None, digest="d" * 64)
    return Verdict.model_validate(
        {"outcome": outcome, "candidate": side, "champion": side, "criteria": (), "reported": (), "reasons": ("so.",)}
    )


@pytest.mark.parametrize(
    ("lost", "won", "p", "collapsed"),
    [
        (6, 0, 1 / 64, True),  # six heads of six throws
        (5, 0, 1 / 32, False),
        (7, 1, 9 / 256, False),  # seven or eight of eight: 8 + 1 of 256
        (8, 1, 10 / 512, True),  # eight or nine of nine: 9 + 1 of 512
        (3, 3, 42 / 64, False),  # three or more of six: 20 + 15 + 6 + 1 of 64
        (0, 9, 1.0, False),
    ],
)
def test_a_category_collapsed_where_an_exact_sign_test_says_so(lost: int, won: int, p: float, collapsed: bool) -> None:
    items, after, before = joined(category("fees", lost, won, kept=4))
    (found,) = by_category({item.id: item.category for item in items}, after[RIGHT], before[RIGHT], ALPHA)
    assert (found.p, found.collapsed) == (pytest.approx(p, abs=1e-6), collapsed)
    assert (found.n, found.before, found.after) == (lost + won + 4, lost + 4, won + 4)
    assert (set(found.lost), set(found.won)) == tuple(
        {item.id for item in part} for part in (items[:lost], items[lost : lost + won])
    )


def test_a_category_that_collapses_while_all_others_gain_holds_the_candidate_and_is_named() -> None:
    items, after, before = joined(category("fees", 8, 0, 4), category("停车", 0, 40, 0))
    found = blocked_by_categories(verdict_of("promote"), items, after, before, load_params().gate)
    assert found.outcome == "hold" and "a whole category" in found.reasons[0]
    assert found.reasons[1] == (
        "Right answers on fees fall from 12 to 4 of 12: 8 lost, 0 won (exact sign test: p = 0.004)."
    )
    assert [one.name for one in found.categories] == ["fees", "停车"]


def test_a_collapse_does_not_soften_a_rejection_and_a_candidate_without_one_stays_as_it_was_judged() -> None:
    items, after, before = joined(category("fees", 8, 0, 4))
    assert blocked_by_categories(verdict_of("reject"), items, after, before, load_params().gate).outcome == "reject"
    items, after, before = joined(category("fees", 5, 0, 4))
    kept = blocked_by_categories(verdict_of("promote"), items, after, before, load_params().gate)
    assert (kept.outcome, kept.reasons) == ("promote", ("so.",))


def test_without_key_facts_or_categories_there_is_nothing_to_tell() -> None:
    plain = make_item(set="domain", prompt="a?", reference="b")
    for after, before in (({}, {}), ({RIGHT: {plain.id: 0.0}}, {RIGHT: {plain.id: 1.0}})):
        assert blocked_by_categories(verdict_of("promote"), [plain], after, before, load_params().gate).categories == ()
