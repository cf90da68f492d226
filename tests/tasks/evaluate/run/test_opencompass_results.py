"""Results that are not whole are refused; nothing of them is used."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tasks.core.records import make_item
from tasks.evaluate.run.opencompass_config import DataSet, data_sets_of
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.run.opencompass_results import check_predictions, check_results, read_responses
from tasks.evaluate.scoring.questions import Question, Response

ITEM = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=0)
CHOICES = Question(ITEM, "choices", "Which?", ("a", "b"), (1, 1))
FREE = make_item(set="domain", prompt="How?", reference="So.")
GENERATION = Question(FREE, "generation", "How?", ("So.",), (2,))
QUESTIONS = [CHOICES, GENERATION]
Content = dict[str, Any]


def good(data_set: DataSet) -> tuple[Content, Content]:
    """What OpenCompass writes: predictions by row number, details with each field in a list."""
    predictions: Content = {}
    details = []
    for index, row in enumerate(data_set.rows):
        entry: Content = {"origin_prompt": row.text}
        if data_set.kind == "generation":
            entry |= {"gold": row.reference, "prediction": "Like so."}
            details.append({"example_abbr": f"x_{index}", "key": [row.key], "rouge_l": [2 / 3]})
        else:
            entry |= {"ppl": 1.5 + index}
            details.append({"example_abbr": f"x_{index}", "key": [row.key], "nll": [1.5 + index]})
        predictions[str(index)] = entry
    return predictions, {"average": 1.0, "details": details}


def lay_out(folder: Path, run: str = "20260101_000000") -> None:
    for data_set in data_sets_of(QUESTIONS):
        for kind, content in zip(("predictions", "results"), good(data_set), strict=True):
            path = folder / run / kind / "candidate" / f"{data_set.name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))


def read(folder: Path) -> list[Response]:
    return read_responses(folder, "candidate", data_sets_of(QUESTIONS), QUESTIONS)


def test_a_whole_run_gives_each_question_its_outcome(tmp_path: Path) -> None:
    lay_out(tmp_path)
    assert read(tmp_path) == [Response(values=(1.5, 2.5)), Response(values=(2 / 3,), text="Like so.")]


@pytest.mark.parametrize("kind", ["predictions", "results"])
@pytest.mark.parametrize("content", [None, "", "{", "-", "[]", "null", "{}"])
def test_a_missing_or_broken_file_is_refused(tmp_path: Path, kind: str, content: str | None) -> None:
    lay_out(tmp_path)
    (path,) = tmp_path.glob(f"*/{kind}/candidate/mmlu_choices.json")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(EvaluationError):
        read(tmp_path)


def test_no_run_and_two_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="holds 0 runs"):
        read(tmp_path / "nowhere")
    lay_out(tmp_path)
    lay_out(tmp_path, "20260101_000001")
    with pytest.raises(EvaluationError, match="holds 2 runs"):
        read(tmp_path)


(MMLU,) = data_sets_of([CHOICES])
(DOMAIN,) = data_sets_of([GENERATION])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "", "-", "1.5", True, -0.5, [], {}, 1.5])
def test_a_score_that_is_no_number_or_not_its_prediction_is_refused(value: Any) -> None:
    predictions, results = good(MMLU)
    results["details"][1]["nll"] = [value]
    predictions["1"]["ppl"] = value if value != 1.5 else value + 1e-9
    with pytest.raises(EvaluationError):
        check_results(MMLU, results, predictions)
    predictions, results = good(DOMAIN)
    results["details"][0]["rouge_l"] = [value]
    with pytest.raises(EvaluationError):
        check_results(DOMAIN, results, predictions)


def broken_results() -> dict[str, Content]:
    """name → results of MMLU with one thing wrong."""
    _, results = good(MMLU)
    cases = {name: deepcopy(results) for name in ("a row too few", "a row twice", "a row of nobody", "no key")}
    cases["a row too few"]["details"].pop()
    cases["a row twice"]["details"][1] = deepcopy(results["details"][0])
    cases["a row of nobody"]["details"][1]["key"] = ["choices:0:0"]
    del cases["no key"]["details"][1]["key"]
    more = {"two repetitions": [1.5, 1.5], "no repetition": [], "not in a list": 1.5}
    for name, value in more.items():
        cases[name] = deepcopy(results)
        cases[name]["details"][0]["nll"] = value
    return cases | {
        "no details": {"average": 1.0},
        "an error": results | {"error": "predictions and references have different length"},
        "details as a table": {"details": {"0": 1}},
    }


@pytest.mark.parametrize("name", broken_results())
def test_results_that_are_not_one_score_for_each_row_are_refused(name: str) -> None:
    predictions, _ = good(MMLU)
    with pytest.raises(EvaluationError):
        check_results(MMLU, broken_results()[name], predictions)


@pytest.mark.parametrize(
    ("field", "value"),
    [("origin_prompt", "Which ?"), ("origin_prompt", None), ("gold", "Not so."), ("prediction", None)],
)
def test_a_row_that_was_asked_or_compared_with_another_text_is_refused(field: str, value: str | None) -> None:
    predictions, _ = good(DOMAIN)
    predictions["0"][field] = value
    for wrong in (predictions, {}, good(DOMAIN)[0] | {"1": {}}):
        with pytest.raises(EvaluationError):
            check_predictions(DOMAIN, wrong)
