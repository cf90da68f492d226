"""The margins' arithmetic, by hand."""

from __future__ import annotations

import pytest

from tasks.evaluate.pilot import reworded, smallest_margin
from tasks.records import make_item


def test_the_margin_is_two_and_a_half_standard_errors() -> None:
    """Differences ±0.1, fifty of each: sd = 0.1·√(100/99) = 0.100504; (1.644854 + 0.841621)·0.100504/√100 = 0.024990."""
    assert smallest_margin([0.1, -0.1] * 50) == pytest.approx(0.024990, abs=1e-6)


def test_four_times_the_items_resolve_half_the_margin() -> None:
    """Up to the sample's own correction: 39/40 of the variance is left out with 40 items, 159/160 with 160."""
    assert smallest_margin([0.1, -0.1] * 80) == pytest.approx(smallest_margin([0.1, -0.1] * 20) / 2, rel=0.02)


def test_the_other_wording_asks_the_same_under_another_id() -> None:
    item = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=1, category="law")
    other = reworded(item)
    assert other.prompt == "Please answer the following.\n\nWhich?"
    assert (other.choices, other.answer, other.category) == (item.choices, item.answer, item.category)
    assert other.id != item.id
