"""Reads what an OpenCompass run left behind, and believes none of it unchecked.

OpenCompass writes `predictions/` (one entry a row: the text it sent, the answer or the likelihood) and `results/`
(the evaluator's details, by row key, in full precision). Both must be whole and must agree with what was asked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.evaluate.run.opencompass_config import DataSet, Row, rows_of
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.scoring.questions import Outcome, Question

Values = dict[str, float]
AGAIN = "no score was written; run the stage again"


def read_outcomes(folder: Path, who: str, data_sets: Sequence[DataSet], questions: Sequence[Question]) -> list[Outcome]:
    """The outcome of each question, in their order.

    Args:
        folder: what was given to OpenCompass as its work folder; it holds one run.
        who: the model's abbreviation in the configuration.

    Raises:
        EvaluationError: a file, a row or a value is missing, doubled, not finite, or not of what was asked.
    """
    runs = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if len(runs) != 1:
        raise EvaluationError(f"{folder} holds {len(runs)} runs of OpenCompass, not one; {AGAIN}")
    values: Values = {}
    texts: dict[str, str] = {}
    for data_set in data_sets:
        predictions = _load(runs[0] / "predictions" / who / f"{data_set.name}.json")
        results = _load(runs[0] / "results" / who / f"{data_set.name}.json")
        texts |= check_predictions(data_set, predictions)
        values |= check_results(data_set, results, predictions)
    return [_outcome(question, values, texts) for question in questions]


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(f"OpenCompass wrote no {path.parts[-3]}/{path.name}: that task failed; {AGAIN}") from None
    except ValueError as error:
        raise EvaluationError(f"{path} is not JSON ({error}); {AGAIN}") from None
    if not isinstance(content, dict):
        raise EvaluationError(f"{path} holds no table of rows; {AGAIN}")
    return content


def check_predictions(data_set: DataSet, predictions: Mapping[str, Any]) -> dict[str, str]:
    """Row key → generated text (empty for data sets that generate nothing).

    Raises:
        EvaluationError: rows are missing or too many, or OpenCompass sent another text or reference than ours.
    """
    expected = {str(index) for index in range(len(data_set.rows))}
    if predictions.keys() != expected:
        raise EvaluationError(f"{data_set.name}: predictions for {len(predictions)} of {len(expected)} rows; {AGAIN}")
    texts = {}
    for index, row in enumerate(data_set.rows):
        entry = predictions[str(index)]
        if not isinstance(entry, dict) or entry.get("origin_prompt") != row.text:
            raise EvaluationError(f"{data_set.name}: row {row.key} was asked with another text than ours; {AGAIN}")
        if data_set.measure == "generation":
            texts[row.key] = _generated(data_set, row, entry)
    return texts


def _generated(data_set: DataSet, row: Row, entry: dict[str, Any]) -> str:
    if entry.get("gold") != row.reference:
        raise EvaluationError(f"{data_set.name}: row {row.key} was compared with another reference than ours; {AGAIN}")
    text = entry.get("prediction")
    if not isinstance(text, str):
        raise EvaluationError(f"{data_set.name}: row {row.key} has no generated text; {AGAIN}")
    return text


def check_results(data_set: DataSet, results: Mapping[str, Any], predictions: Mapping[str, Any]) -> Values:
    """Row key → value: ROUGE-L F1, or nats per token.

    Raises:
        EvaluationError: details are missing, a row is missing or doubled, a value is empty, `-`, NaN or out of range,
            or differs from the prediction it was made of.
    """
    details = results.get("details")
    if not isinstance(details, list) or "error" in results:
        raise EvaluationError(f"{data_set.name}: OpenCompass gives no score for each item; {AGAIN}")
    metric = "rouge_l" if data_set.measure == "generation" else "nll"
    found: Values = {}
    for detail in details:
        key, value = _only(detail, "key"), _only(detail, metric)
        if not isinstance(key, str) or key in found:
            raise EvaluationError(f"{data_set.name}: a score has no row or the row of another ({key!r}); {AGAIN}")
        found[key] = checked_value(value, metric, f"{data_set.name}: row {key}")
    if found.keys() != {row.key for row in data_set.rows}:
        raise EvaluationError(f"{data_set.name}: {len(found)} scores for {len(data_set.rows)} rows; {AGAIN}")
    if metric == "nll":
        for index, row in enumerate(data_set.rows):
            if predictions[str(index)].get("ppl") != found[row.key]:
                raise EvaluationError(f"{data_set.name}: score and prediction of row {row.key} differ; {AGAIN}")
    return found


def _only(detail: Any, column: str) -> Any:
    """OpenCompass wraps each field of a detail in a list, one entry for each repetition; there is one repetition."""
    wrapped = detail.get(column) if isinstance(detail, dict) else None
    return wrapped[0] if isinstance(wrapped, list) and len(wrapped) == 1 else None


def checked_value(value: Any, metric: str, where: str) -> float:
    """`value` as a number that can be one: finite, not negative, and at most 1 for ROUGE-L.

    Raises:
        EvaluationError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise EvaluationError(f"{where} has the {metric} {value!r}, which is no number; {AGAIN}")
    if value < 0 or (metric == "rouge_l" and value > 1):
        raise EvaluationError(f"{where} has the {metric} {value!r}, which is out of range; {AGAIN}")
    return float(value)


def _outcome(question: Question, values: Values, texts: dict[str, str]) -> Outcome:
    keys = [row.key for row in rows_of(question)]
    return Outcome(values=tuple(values[key] for key in keys), text=texts.get(keys[0]))
