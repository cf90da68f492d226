"""Fetching the champion's weights from a real registry, and pointing at them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.files import folder_digest, verify_manifest, write_json, write_manifest
from tasks.core.pointers import read_pointer
from tasks.registry.pointer import (
    EVALUATION_ARTIFACT,
    VersionUnavailable,
    fetch_probes,
    fetch_weights,
    refresh_pointer,
)
from tasks.registry.runs import experiment_id, open_run
from tasks.registry.versions import Registry, Version
from tasks.text.prompts import encode_text, render_prompt
from tests.mlflow_store import lay_mlflow


def champion_of(registry: Registry, folder: Path, text: str = "adapter", **more: str) -> str:
    """Put a package of one file into the registry and make it champion by override; returns its digest."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/adapter_model.safetensors").write_text(text)
    digest = write_manifest(folder)
    run_id = open_run(registry.client, registry.home, registry.domain, text, "test")
    registry.client.log_artifacts(run_id, str(folder), "package")
    tags = {"manifest_sha256": digest, "verdict_sha256": "v", "verdict": "hold", **more}
    version = registry.register(run_id, tags)
    registry.promote(registry.override(version, "a test"))
    return digest


def test_without_a_champion_the_pointer_names_the_base_model(registry: Registry, tmp_path: Path) -> None:
    assert refresh_pointer(registry, tmp_path).kind == "base"
    assert read_pointer(tmp_path).version == "base"


def test_the_champion_is_fetched_under_its_digest_and_again_where_it_was_damaged(
    registry: Registry, tmp_path: Path
) -> None:
    digest = champion_of(registry, tmp_path / "package")
    pointer = refresh_pointer(registry, tmp_path, night=7)
    assert (pointer.kind, pointer.version, pointer.digest, pointer.night) == ("version", "1", digest, 7)
    assert read_pointer(tmp_path) == pointer
    (tmp_path / layout.WEIGHTS / digest / "adapter/adapter_model.safetensors").write_text("torn")
    refresh_pointer(registry, tmp_path)
    assert read_pointer(tmp_path).night is None, "somebody else asks than the night"
    assert verify_manifest(tmp_path / layout.WEIGHTS / digest) == digest


def test_with_a_champion_that_a_night_made_the_version_it_began_at_is_fetched_and_named(
    registry: Registry, tmp_path: Path
) -> None:
    first = champion_of(registry, tmp_path / "first", asked="release", continues="base")
    assert refresh_pointer(registry, tmp_path).anchor is None, "it is the champion itself"
    champion_of(registry, tmp_path / "second", "another", asked="night", continues="1")
    shutil.rmtree(tmp_path / layout.WEIGHTS)
    pointer = refresh_pointer(registry, tmp_path)
    assert pointer.anchor is not None and (pointer.version, pointer.anchor.version) == ("2", "1")
    assert pointer.anchor.digest == first == verify_manifest(tmp_path / layout.WEIGHTS / first)
    assert read_pointer(tmp_path) == pointer and pointer.spent == {}


def test_the_pointer_of_a_night_says_what_nights_before_it_did_not_pass(registry: Registry, tmp_path: Path) -> None:
    more = {"feedback_night": "7", "not_passed": "dialogue_nll"}
    champion_of(registry, tmp_path / "first", asked="release", continues="base")
    champion_of(registry, tmp_path / "second", "another", asked="night", continues="1", **more)
    assert refresh_pointer(registry, tmp_path, night=8).spent == {"dialogue_nll": 1} == read_pointer(tmp_path).spent
    assert refresh_pointer(registry, tmp_path, night=7).spent == {}, "it is that night, taken up again"
    assert refresh_pointer(registry, tmp_path).spent == {}, "no night asks"
    registry.mark_forgotten(registry.get("champion"), "c")
    pointer = refresh_pointer(registry, tmp_path)
    assert (pointer.renewal, pointer.spent) == ("forgotten", {"dialogue_nll": 1})


def test_a_registry_whose_files_were_changed_is_refused_and_the_pointer_kept(
    registry: Registry, tmp_path: Path
) -> None:
    champion_of(registry, tmp_path / "package")
    version = registry.get("champion")
    registry.client.log_text(version.run_id, "forged", "package/adapter/adapter_model.safetensors")
    with pytest.raises(VersionUnavailable, match="cannot be fetched"):
        refresh_pointer(registry, tmp_path)
    assert not (tmp_path / layout.CHAMPION_POINTER).exists()


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
    with pytest.raises(VersionUnavailable, match="not the one it was registered with"):
        fetch_probes(registry, version)


def test_a_version_without_an_evaluation_has_no_probes(tmp_path: Path, registered: tuple[Registry, Version]) -> None:
    registry, version = registered
    fetch_weights(registry, version, tmp_path)
    bare = a_run(registry)
    registry.client.log_artifacts(bare, str(tmp_path / layout.WEIGHTS / version.manifest), "package")
    with pytest.raises(VersionUnavailable, match="cannot be fetched"):
        fetch_probes(registry, Version("2", bare, dict(version.tags)))
