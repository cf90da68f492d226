"""What OpenCompass's results of a benchmark are taken for: one number an item, or a refusal that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.benchmarks import Benchmark
from tasks.evaluate.run.benchmarks import row_values
from tasks.evaluate.run.opencompass_process import EvaluationError

ROWS = [["a" * 64, "own_0"], ["b" * 64, "own_1"]]
PREDICTIONS: dict[str, Any] = {"0": {"prediction": "x"}, "1": {"prediction": "y"}}


def values(details: Any, metric: str = "correct", evaluator: str = "OwnEvaluator", **results: Any) -> list[float]:
    one = Benchmark(name="own", config="own.py", metric=metric)
    found = {"accuracy": 50.0, "details": details, **results}
    return row_values(one, {"evaluator": evaluator, "rows": ROWS}, PREDICTIONS, found)


def details(**columns: list[Any]) -> list[dict[str, Any]]:
    """As OpenCompass writes what an evaluator said: each field in a list, with its own name for the row."""
    return [{"example_abbr": ROWS[at][1], **{name: [each[at]] for name, each in columns.items()}} for at in (0, 1)]


@pytest.mark.parametrize(
    ("found", "metric", "expected"),
    [
        (details(correct=[True, False]), "correct", [1.0, 0.0]),
        (details(is_correct=[False, True]), "correct", [0.0, 1.0]),
        (details(score=[0.25, 3], pred=["x", "y"]), "score", [0.25, 3.0]),
        # What OpenCompass itself writes for likelihoods.
        ({"type": "PPL", "0": {"correct": True}, "1": {"correct": False}}, "correct", [1.0, 0.0]),
    ],
)
def test_an_items_value_is_what_the_evaluator_says_of_it(found: Any, metric: str, expected: list[float]) -> None:
    assert values(found, metric) == expected


def test_the_evaluator_that_counts_equal_texts_is_right_where_they_are_equal() -> None:
    texts = {"0": {"predictions": "B", "references": "B"}, "1": {"predictions": "A", "references": "B"}}
    assert values({"type": "GEN", **texts}, evaluator="AccEvaluator") == [1.0, 0.0]
    with pytest.raises(EvaluationError, match="says nothing about single items"):
        values({"type": "GEN", **texts}, evaluator="BleuEvaluator")


@pytest.mark.parametrize("found", [None, {}, [], details(pred=["x", "y"])])
def test_a_set_that_says_nothing_about_single_items_is_refused_with_what_to_do(found: Any) -> None:
    with pytest.raises(EvaluationError, match=r"the set own: .*OwnEvaluator.*AccwithDetailsEvaluator") as refused:
        values(found)
    assert "`metric:`" in str(refused.value)


@pytest.mark.parametrize(
    ("found", "more", "cause"),
    [
        (details(correct=[True, False])[:1], {}, "1 scores for 2 rows"),
        (details(correct=[True, False])[::-1], {}, "not in the order"),
        (details(correct=[True, None]), {}, "says nothing about single items"),
        (details(correct=[True, float("nan")]), {}, "which is no number"),
        (details(correct=[True, "yes"]), {}, "which is no number"),
        (details(correct=[True, False]), {"error": "no references"}, "its evaluator failed: no references"),
        ({"type": "PPL", "0": {"correct": True}}, {}, "1 scores for 2 rows"),
    ],
)
def test_what_is_missing_or_no_number_gives_no_score_at_all(found: Any, more: dict[str, Any], cause: str) -> None:
    with pytest.raises(EvaluationError, match=cause):
        values(found, **more)


def test_a_prediction_that_is_missing_gives_no_score_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(PREDICTIONS, "1")
    with pytest.raises(EvaluationError, match="predictions for 1 of 2 rows"):
        values(details(correct=[True, False]))
