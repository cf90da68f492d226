"""What a version answered when it was evaluated: read from its run, checked, rendered as in training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.registry.inputs import folder_digest
from tasks.registry.pointer import fetch_weights
from tasks.registry.probes import EVALUATION_ARTIFACT, ProbesUnavailable, fetch_probes
from tasks.registry.runs import experiment_id
from tasks.registry.versions import Registry, Version
from tasks.text.prompts import encode_text, render_prompt
from tests.mlflow_store import lay_mlflow

ANSWERS = [
    {"id": letter * 64, "set": group, "prompt": f"Question {letter}?", "reference": "Right.", "text": f"Said {letter}."}
    for letter, group in (("a", "domain"), ("b", "dialogue"), ("c", "domain"), ("d", "domain"))
]
SCORES = [
    {"id": row["id"], "set": row["set"], "metric": metric, "value": 1.5, "tokens": 3}
    for row in ANSWERS
    for metric in ("rouge_l", "nll")
    if row["id"] != "c" * 64
]


def a_run(registry: Registry) -> str:
    experiment = experiment_id(registry.client, registry.home, registry.domain)
    return str(registry.client.create_run(experiment).info.run_id)


@pytest.fixture
def registered(tmp_path: Path, base_model: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Registry, Version]:
    """A version with a package and an evaluation: two domain answers with a loss, one without, one of another set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / layout.BASE_MODEL).symlink_to(base_model, target_is_directory=True)
    package, evaluation = tmp_path / "package", tmp_path / "candidate"
    write_json(package / "prompt.json", {"system": "Be brief."})
    digest = write_manifest(package)
    evaluation.mkdir()
    for name, rows in (("answers", ANSWERS), ("scores", SCORES)):
        (evaluation / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    registry = Registry("probed", lay_mlflow(tmp_path))
    run = a_run(registry)
    registry.client.log_artifacts(run, str(package), "package")
    registry.client.log_artifacts(run, str(evaluation), EVALUATION_ARTIFACT)
    shutil.rmtree(package)
    tags = {"manifest_sha256": digest, "verdict_sha256": "v", "evaluation_sha256": str(folder_digest(evaluation))}
    return registry, registry.register(run, tags)


def test_a_probe_has_the_prompt_the_model_was_trained_with_and_what_it_answered(
    registered: tuple[Registry, Version], base_model: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base_model)
    first, last = fetch_probes(*registered)
    assert (first.nll, first.reference, first.answer, last.answer) == (1.5, "Right.", "Said a.", "Said d.")
    assert first.prompt == render_prompt(tokenizer, "Be brief.", "Question a?")
    assert first.prompt_ids == encode_text(tokenizer, first.prompt)


def test_an_evaluation_that_was_changed_since_is_refused(registered: tuple[Registry, Version]) -> None:
    registry, version = registered
    registry.client.log_text(version.run_id, "{}", f"{EVALUATION_ARTIFACT}/more.json")
    with pytest.raises(ProbesUnavailable, match="not the one it was registered with"):
        fetch_probes(registry, version)


def test_a_version_without_an_evaluation_has_no_probes(tmp_path: Path, registered: tuple[Registry, Version]) -> None:
    registry, version = registered
    fetch_weights(registry, version, tmp_path)
    bare = a_run(registry)
    registry.client.log_artifacts(bare, str(tmp_path / layout.WEIGHTS / version.manifest), "package")
    with pytest.raises(ProbesUnavailable, match="cannot be read"):
        fetch_probes(registry, Version("2", bare, dict(version.tags)))
