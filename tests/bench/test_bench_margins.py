"""The margins' arithmetic, by hand."""

from __future__ import annotations

import pytest

from tasks.core.records import make_item
from tests.bench.bench_margins import OTHERS, PLAIN, Wording, reworded, smallest_margin


def test_the_margin_is_two_and_a_half_standard_errors() -> None:
    """Fifty differences each of ±0.1: sd 0.1·√(100/99) = 0.100504; (1.644854 + 0.841621)·0.100504/√100 = 0.024990."""
    assert smallest_margin([0.1, -0.1] * 50) == pytest.approx(0.024990, abs=1e-6)


def test_four_times_the_items_resolve_half_the_margin() -> None:
    """Up to the sample's own correction: 39/40 of the variance is left out with 40 items, 159/160 with 160."""
    assert smallest_margin([0.1, -0.1] * 80) == pytest.approx(smallest_margin([0.1, -0.1] * 20) / 2, rel=0.02)


@pytest.mark.parametrize("wording", OTHERS, ids=lambda wording: wording.name)
def test_another_wording_asks_the_same_item(wording: Wording) -> None:
    """Braces in a question are text, not places to fill."""
    item = make_item(set="mmlu", prompt="Which of {a, b}?", choices=("a", "b"), answer=1)
    other = reworded(item, wording)
    assert "Which of {a, b}?" in other.prompt
    assert (other.prompt != item.prompt) or wording.system
    assert other.model_copy(update={"prompt": item.prompt}) == item


def test_the_plain_wording_is_the_one_that_is_evaluated() -> None:
    item = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=1)
    assert (reworded(item, PLAIN), PLAIN.system) == (item, "")
