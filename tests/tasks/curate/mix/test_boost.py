"""Weak spots: the hardest examples, unless they look bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.params import Params, load_params
from tasks.core.records import Example, make_example
from tasks.curate.mix.boost import sort_spots


@pytest.fixture
def params(root: Path) -> Params:
    """The default settings with a fifth of the examples boosted, perplexities up to 100 believed."""
    found = load_params(root / "params.yaml")
    boost = found.mix.boost.model_copy(update={"share": 0.2, "max_perplexity": 100.0})
    return found.model_copy(update={"mix": found.mix.model_copy(update={"boost": boost})})


def examples(**last: Any) -> list[Example]:
    """Ten, the last of which has other fields."""
    made = [{"instruction": f"Question {n}?", "output": "Ten weeks."} for n in range(10)]
    made[-1] |= last
    return [make_example(**fields, language="en", origin="self_qa", source=("t",)) for fields in made]


def test_the_hardest_share_is_boosted_the_hardest_first(params: Params) -> None:
    rows = examples()
    spots = sort_spots(rows, [1, 2, 3, 99, 5, 6, 7, 8, 9, 10], params)
    assert (spots.weak, spots.doubtful) == ([rows[3].id, rows[9].id], {})


def test_an_unbelievable_perplexity_speaks_against_the_example_and_not_against_the_model(params: Params) -> None:
    rows = examples()
    spots = sort_spots(rows, [1, 2, 3, 4, 5, 6, 7, 8, 50, 1234.5], params)
    assert spots.weak == [rows[8].id]
    assert spots.doubtful == {rows[9].id: "a weak spot not weighted: perplexity 1234 is above 100"}


def test_an_answer_that_its_evidence_does_not_support_is_not_boosted(params: Params) -> None:
    rows = examples(output="It takes 73 weeks.", evidence="A building permit takes ten weeks.")
    spots = sort_spots(rows, range(10, 20), params)
    assert spots.weak == [rows[8].id]
    assert spots.doubtful == {rows[9].id: "a weak spot not weighted: groundedness 0.00 is below 0.7"}


def test_no_examples_have_no_weak_spots(params: Params) -> None:
    assert sort_spots([], [], params).weak == []
