"""What keeps scores of the two backends apart, and what the engine's needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.core import layout
from tasks.core.params import load_params
from tasks.evaluate.run.opencompass_process import EvaluationError
from tasks.evaluate.run.score_cache import engine_lock
from tasks.evaluate.run.stage import conditions_of, serving
from tasks.evaluate.scoring.subject import Subject

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
