"""The benchmarks of evaluation.yaml put to one model, and their scores, item by item.

OpenCompass runs them with its own data sets, inferencers and evaluators (opencompass_sets.py), and the project's model
(opencompass_chat.py). A set is asked whole, and its scores are kept under the digest of everything that shaped them.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.benchmarks import Benchmark
from tasks.core.files import digest_of, write_json
from tasks.core.records import DECIMALS, Score
from tasks.evaluate.run.opencompass_config import stages
from tasks.evaluate.run.opencompass_process import EvaluationError, run_sets
from tasks.evaluate.run.opencompass_results import AGAIN, load_results, one_run
from tasks.evaluate.run.score_cache import Conditions
from tasks.evaluate.scoring.subject import Subject

KEPT = layout.CACHE / "sets"
CHAT = {"AnswerModel": "ChatModel", "EngineModel": "ChatEngineModel"}
SAME = ("correct", "is_correct", "cascade_correct")  # OpenCompass's evaluators call one thing by these names
PLAIN = "AccEvaluator"  # says how many texts are equal, and not which
Values = dict[str, float]
Serving = Callable[[], AbstractContextManager[dict[str, Any]]]


def benchmark_scores(
    sets: Sequence[Benchmark],
    folder: Path,
    subject: Subject,
    system: str,
    conditions: Conditions,
    serving: Serving,
    minutes: float,
) -> list[Score]:
    """The score of every item of every set; `folder` is the domain's, `serving` gives the model's configuration.

    Raises EvaluationError, SettingsError: OpenCompass failed, a set gives no score for each item, or its data are gone.
    """
    keys = {one.name: _key(one.definition(folder), subject, system, conditions) for one in sets}
    known = {one.name: found for one in sets if (found := _find(keys[one.name])) is not None}
    missing: dict[Path, list[Benchmark]] = {}
    for one in sets:
        if one.name not in known:
            missing.setdefault(one.data_folder(folder), []).append(one)
    if missing:
        names = ", ".join(one.name for group in missing.values() for one in group)
        print(f"{subject.who}: benchmarks to ask: {names}; starting OpenCompass", flush=True)
        with serving() as model:
            chat = chat_model(model, system, conditions)
            for data, group in missing.items():
                for name, values in _ask(group, folder, data, chat, subject.who, minutes).items():
                    write_json(_path(keys[name]), values)
                    known[name] = values
    return [
        Score(id=identity, set=one.name, metric=one.metric, value=value)
        for one in sets
        for identity, value in sorted(known[one.name].items())
    ]


def asked_sets(sets: Sequence[Benchmark], folder: Path, scores: Sequence[Score]) -> dict[str, dict[str, str]]:
    """Set → the digests of its definition and of its items: a part of the conditions, equal for both sides."""
    return {
        one.name: {
            "definition": one.definition(folder),
            "items": digest_of(sorted(score.id for score in scores if score.set == one.name)),
        }
        for one in sets
    }


def chat_model(model: dict[str, Any], system: str, conditions: Conditions) -> dict[str, Any]:
    """The same model as our own questions are put to, for OpenCompass's own prompts."""
    kind = CHAT[model["type"].rpartition(".")[2]]
    defaults = {"batch_size": conditions.batch_size, "max_out_len": conditions.max_new_tokens}
    return {**model, "type": f"tasks.evaluate.run.opencompass_chat.{kind}", "system": system, **defaults}


def _key(definition: str, subject: Subject, system: str, conditions: Conditions) -> str:
    return digest_of([definition, subject.identity, system, asdict(conditions)])


def _path(key: str) -> Path:
    return KEPT / key[:2] / f"{key}.json"


def _find(key: str) -> Values | None:
    """The scores kept under `key`; None where there are none that are whole."""
    try:
        found: Values = json.loads(_path(key).read_text(encoding="utf-8"))
        return found if found and all(math.isfinite(value) for value in found.values()) else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


def _ask(
    sets: Sequence[Benchmark], domain: Path, data: Path, model: dict[str, Any], who: str, minutes: float
) -> dict[str, Values]:
    folder = (layout.HOME / "evaluation" / who / f"sets_{sets[0].name}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    asked = []
    for one in sets:
        path = one.config_file(domain)
        fields = one.model_dump(include={"name", "opencompass", "only", "most"})
        asked.append({**fields, "config": str(path.absolute()) if path else ""})
    write_json(folder / "request.json", {"sets": asked, "models": [model], **stages()})
    run_sets(folder, data, who, minutes)
    rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
    run = one_run(folder / "runs")
    return {one.name: set_values(one, rows.get(one.name, {}), run, who) for one in sets}


def set_values(one: Benchmark, rows: Mapping[str, Any], run: Path, who: str) -> Values:
    """Item → value of one set; the same item in two places counts once. Raises EvaluationError: see row_values."""
    found: Values = {}
    for abbr, about in rows.items():
        predictions = load_results(run / "predictions" / who / f"{abbr}.json")
        results = load_results(run / "results" / who / f"{abbr}.json")
        values = row_values(one, about, predictions, results)
        for (identity, _), value in zip(about["rows"], values, strict=True):
            found.setdefault(identity, value)
    if not found:
        raise EvaluationError(f"the set {one.name} has no item; {AGAIN}")
    return found


def row_values(
    one: Benchmark, about: Mapping[str, Any], predictions: Mapping[str, Any], results: Mapping[str, Any]
) -> list[float]:
    """The value of each row of one data set, in their order.

    Raises EvaluationError: rows are missing, doubled or in another order, or the evaluator says nothing about each.
    """
    expected = [str(place) for place in range(len(about["rows"]))]
    if sorted(predictions) != sorted(expected):
        raise EvaluationError(
            f"the set {one.name}: predictions for {len(predictions)} of {len(expected)} rows; {AGAIN}"
        )
    if "error" in results:
        raise EvaluationError(f"the set {one.name}: its evaluator failed: {str(results['error'])[:200]}; {AGAIN}")
    details = results.get("details") or {}
    if isinstance(details, dict):  # written by OpenCompass where the evaluator wrote none
        details = [details[place] for place in expected if place in details]
    elif any(detail.get("example_abbr") != name for detail, (_, name) in zip(details, about["rows"], strict=False)):
        raise EvaluationError(f"the set {one.name}: its evaluator's details are not in the order of its rows; {AGAIN}")
    if len(details) not in (0, len(expected)):
        raise EvaluationError(f"the set {one.name}: {len(details)} scores for {len(expected)} rows; {AGAIN}")
    return [_value(one, str(about["evaluator"]), detail) for detail in details or [{}]]


def _value(one: Benchmark, evaluator: str, detail: Mapping[str, Any]) -> float:
    """What one row's details say under the set's metric, which is a number or yes and no."""
    fields = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in detail.items()
    }
    names = SAME if one.metric == "correct" else (one.metric,)
    found = next((fields[name] for name in names if name in fields), None)
    if (
        found is None
        and one.metric == "correct"
        and evaluator == PLAIN
        and {"predictions", "references"} <= set(fields)
    ):
        found = fields["predictions"] == fields["references"]
    if found is None:
        raise EvaluationError(
            f"the set {one.name}: its evaluator ({evaluator}) says nothing about single items under {one.metric!r}; "
            f"it says {', '.join(sorted(fields)) or 'nothing at all'}. Name what it says in `metric:`, or use an "
            "evaluator that gives details, such as AccwithDetailsEvaluator, in a configuration of your own"
        )
    if not isinstance(found, bool | int | float) or not math.isfinite(found):
        raise EvaluationError(f"the set {one.name}: {one.metric} of an item is {found!r}, which is no number; {AGAIN}")
    return round(float(found), DECIMALS)
