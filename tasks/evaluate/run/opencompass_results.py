"""Reads what an OpenCompass run left behind, and believes none of it unchecked.

OpenCompass writes `predictions/` (one entry a row: the text it sent, the answer or the likelihood) and `results/`
(the evaluator's details, by row key, in full precision). Both must be whole and must agree with what was asked.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.evaluate.run.opencompass_config import DataSet, rows_of
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.scoring.questions import Question, Response

AGAIN = "no score was written; run the stage again"


def read_responses(
    folder: Path, who: str, data_sets: Sequence[DataSet], questions: Sequence[Question]
) -> list[Response]:
    """The response to each question, in their order; `folder` holds one run of OpenCompass.

    Raises EvaluationError: a file, a row or a value is missing, doubled, not finite, or not of what was asked.
    """
    run = one_run(folder)
    values: dict[str, float] = {}
    texts: dict[str, str] = {}
    for data_set in data_sets:
        predictions = load_results(run / "predictions" / who / f"{data_set.name}.json")
        results = load_results(run / "results" / who / f"{data_set.name}.json")
        texts |= check_predictions(data_set, predictions)
        values |= check_results(data_set, results, predictions)
    keys = [[row.key for row in rows_of(question)] for question in questions]
    return [Response(values=tuple(values[key] for key in own), text=texts.get(own[0])) for own in keys]


def one_run(folder: Path) -> Path:
    """The folder of the one run below `folder`. Raises EvaluationError: there is none, or several."""
    runs = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    if len(runs) != 1:
        raise EvaluationError(f"{folder} holds {len(runs)} runs of OpenCompass, not one; {AGAIN}")
    return runs[0]


def load_results(path: Path) -> dict[str, Any]:
    """What a file of OpenCompass's results holds. Raises EvaluationError: it is missing or no table of rows."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except FileNotFoundError:
        raise EvaluationError(f"OpenCompass wrote no {path.parts[-3]}/{path.name}: that task failed; {AGAIN}") from None
    except (ValueError, AttributeError) as error:
        raise EvaluationError(f"{path} holds no table of rows ({error}); {AGAIN}") from None


def check_predictions(data_set: DataSet, predictions: Mapping[str, Any]) -> dict[str, str]:
    """Row key → generated text (empty for data sets that generate nothing).

    Raises EvaluationError: rows are missing or too many, or OpenCompass sent another text or reference than ours.
    """
    expected = {str(index) for index in range(len(data_set.rows))}
    if predictions.keys() != expected:
        raise EvaluationError(f"{data_set.name}: predictions for {len(predictions)} of {len(expected)} rows; {AGAIN}")
    texts = {}
    for index, row in enumerate(data_set.rows):
        entry = predictions[str(index)]
        wanted = {"origin_prompt": row.text} | ({"gold": row.reference} if data_set.kind == "generation" else {})
        if not isinstance(entry, dict) or any(entry.get(field) != text for field, text in wanted.items()):
            raise EvaluationError(f"{data_set.name}: row {row.key} was asked with another text than ours; {AGAIN}")
        if data_set.kind == "generation":
            if not isinstance(text := entry.get("prediction"), str):
                raise EvaluationError(f"{data_set.name}: row {row.key} has no generated text; {AGAIN}")
            texts[row.key] = text
    return texts


def check_results(data_set: DataSet, results: Mapping[str, Any], predictions: Mapping[str, Any]) -> dict[str, float]:
    """Row key → value: ROUGE-L F1, or nats per token.

    Raises EvaluationError: details are missing, a row is missing or doubled, a value is empty, `-`, NaN or out of
    range, or differs from the prediction it was made of.
    """
    details = results.get("details")
    if not isinstance(details, list) or "error" in results:
        raise EvaluationError(f"{data_set.name}: OpenCompass gives no score for each item; {AGAIN}")
    metric = "rouge_l" if data_set.kind == "generation" else "nll"
    found: dict[str, float] = {}
    for detail in details:
        key, value = _only(detail, "key"), _only(detail, metric)
        if not isinstance(key, str) or key in found:
            raise EvaluationError(f"{data_set.name}: a score has no row or the row of another ({key!r}); {AGAIN}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= (1 if metric == "rouge_l" else sys.float_info.max):
            raise EvaluationError(f"{data_set.name}: row {key} has the {metric} {value!r}, which cannot be; {AGAIN}")
        found[key] = float(value)
    if found.keys() != {row.key for row in data_set.rows}:
        raise EvaluationError(f"{data_set.name}: {len(found)} scores for {len(data_set.rows)} rows; {AGAIN}")
    for index, row in enumerate(data_set.rows if metric == "nll" else ()):
        if predictions[str(index)].get("ppl") != found[row.key]:
            raise EvaluationError(f"{data_set.name}: score and prediction of row {row.key} differ; {AGAIN}")
    return found


def _only(detail: Any, column: str) -> Any:
    """OpenCompass wraps each field of a detail in a list, one entry for each repetition; there is one repetition."""
    wrapped = detail.get(column) if isinstance(detail, dict) else None
    return wrapped[0] if isinstance(wrapped, list) and len(wrapped) == 1 else None
