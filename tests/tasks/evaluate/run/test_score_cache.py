"""A response is found again only where all that shaped it is the same, the backend and its locks included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.params import load_params
from tasks.core.records import make_item
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.run.score_cache import Conditions, engine_lock, find, keep, key_of
from tasks.evaluate.run.stage import conditions_of, serving
from tasks.evaluate.scoring.questions import Question, Response
from tasks.evaluate.scoring.subject import Subject

from .test_opencompass_config import CONDITIONS

ITEM = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=0)
QUESTION = Question(ITEM, "choices", "user: Which?", ("a", "b"), (1, 1))
MODEL = {"base": "1" * 64, "adapter": None}
RESPONSE = Response(values=(1.5, 2.25))


def key(question: Question = QUESTION, conditions: Conditions = CONDITIONS, **model: str) -> str:
    return key_of(question, {**MODEL, **model}, conditions)


@pytest.mark.parametrize("field", Conditions.__dataclass_fields__)
def test_every_condition_is_part_of_the_key(field: str) -> None:
    value = getattr(CONDITIONS, field)
    changes: dict[str, Any] = {field: value + "x" if isinstance(value, str) else value + 1}
    assert key(conditions=replace(CONDITIONS, **changes)) != key()
    assert len({key(), key(adapter="4" * 64), key(base="5" * 64)}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUESTION, prompt="user: Which one?"),
        replace(QUESTION, answers=("a", "c")),
        replace(QUESTION, answers=("b", "a")),
        replace(QUESTION, kind="nll"),
    ],
)
def test_every_part_of_what_is_asked_is_part_of_the_key(changed: Question) -> None:
    assert key(changed) != key()


def test_what_decides_nothing_is_not_part_of_the_key() -> None:
    """The same question under another item id (say, a new category list) keeps its response."""
    other = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=1)
    assert key(replace(QUESTION, item=other)) == key()


def test_a_response_is_found_as_it_was_kept(tmp_path: Path) -> None:
    assert find(key(), QUESTION, tmp_path) is None
    keep(key(), RESPONSE, tmp_path)
    assert find(key(), QUESTION, tmp_path) == RESPONSE


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"text": "x"}', '{"values": [1.0]}']
    + [f'{{"values": [1.0, {value}], "text": null}}' for value in ("NaN", "Infinity", '"-"', "null")],
)
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, text: str) -> None:
    keep(key(), RESPONSE, tmp_path)
    (entry,) = tmp_path.rglob("*.json")
    entry.write_text(text)
    assert find(key(), QUESTION, tmp_path) is None


SUBJECT = Subject("candidate", None, "d" * 64, Path("/base"), "b" * 64)


def test_a_response_of_one_backend_is_never_taken_for_the_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    settings = load_params().evaluate
    local = conditions_of(settings.model_copy(update={"backend": "huggingface"}))
    engine = conditions_of(settings.model_copy(update={"backend": "engine"}))
    assert local.backend != engine.backend
    assert local.lock != engine.lock
    assert local.source != engine.source


def test_the_engines_lock_is_the_one_its_environment_was_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine_lock() == Path("infra/locks/engine.txt")
    Path(".venv-engine").mkdir()
    Path(".venv-engine/.complete").write_text("engine-gpu\n")
    assert engine_lock() == Path("infra/locks/engine-gpu.txt")


def test_an_engine_that_tells_no_likelihoods_is_refused_before_it_is_started(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))
    params["engine"]["kind"] = "transformers"
    params["evaluate"]["backend"] = "engine"
    (tmp_path / layout.PARAMS).write_text(yaml.safe_dump(params), encoding="utf-8")
    (tmp_path / "infra").symlink_to(root / "infra")
    monkeypatch.chdir(tmp_path)
    settings = load_params().evaluate
    with (
        pytest.raises(EvaluationError, match=r"needs engine\.kind: vllm"),
        serving(SUBJECT, conditions_of(settings), settings),
    ):
        pass
