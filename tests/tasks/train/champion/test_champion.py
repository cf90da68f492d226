"""The champion stage and the pointer it follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.files import verify_manifest, write_manifest
from tasks.core.pointers import PointerError, read_pointer
from tasks.train.champion.stage import champion


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with a base model, as the working directory."""
    monkeypatch.chdir(tmp_path)
    layout.BASE_MODEL.mkdir(parents=True)
    (layout.BASE_MODEL / "model.safetensors").write_text("base")
    write_manifest(layout.BASE_MODEL)
    return tmp_path


def point(kind: str, version: str, digest: str | None) -> None:
    layout.STATE.mkdir(exist_ok=True)
    layout.CHAMPION_POINTER.write_text(json.dumps({"kind": kind, "version": version, "digest": digest}))


def test_the_base_model_is_laid_out_as_its_digest_alone(project: Path) -> None:
    point("base", "base", None)
    assert champion() == "the base model"
    facts = json.loads((layout.CHAMPION / "champion.json").read_text())
    assert facts.pop("digest") == verify_manifest(layout.BASE_MODEL)
    assert facts == {"kind": "base", "version": "base", "night": None, "anchor": None, "spent": {}, "renewal": ""}
    assert {path.name for path in layout.CHAMPION.iterdir()} == {"champion.json", "MANIFEST.json"}


def lay_version(base: str, adapter: str = "adapter") -> str:
    """A version's package in .flywheel/weights, trained over the base model of this digest; returns its own."""
    folder = layout.WEIGHTS / "new"
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/adapter_model.safetensors").write_text(adapter)
    (folder / "base.json").write_text(json.dumps({"digest": base}))
    (folder / "prompt.json").write_text(json.dumps({"system": "Be kind."}))
    (folder / "knowledge").mkdir()
    (folder / "knowledge/passages.parquet").write_text("passages")
    digest = write_manifest(folder)
    folder.rename(layout.WEIGHTS / digest)
    return digest


def test_a_version_is_laid_out_with_all_that_it_answers_from(project: Path) -> None:
    """Judged without its passages, a champion loses to any candidate that has them."""
    digest = lay_version(verify_manifest(layout.BASE_MODEL))
    point("version", "3", digest)
    assert champion() == "version 3"
    assert (layout.CHAMPION / "adapter/adapter_model.safetensors").read_text() == "adapter"
    assert json.loads((layout.CHAMPION / "prompt.json").read_text()) == {"system": "Be kind."}
    assert json.loads((layout.CHAMPION / "champion.json").read_text())["digest"] == digest
    assert (layout.CHAMPION / "knowledge/passages.parquet").read_text() == "passages"
    verify_manifest(layout.CHAMPION)


def test_the_version_that_its_line_is_anchored_at_lies_beside_it(project: Path) -> None:
    base = verify_manifest(layout.BASE_MODEL)
    champion_digest, first = lay_version(base), lay_version(base, "first")
    anchor = {"version": "1", "digest": first}
    pointer = {
        "kind": "version",
        "version": "3",
        "digest": champion_digest,
        "anchor": anchor,
        "spent": {"dialogue_nll": 2},
    }
    layout.STATE.mkdir()
    layout.CHAMPION_POINTER.write_text(json.dumps(pointer))
    champion()
    assert (layout.CHAMPION / "adapter/adapter_model.safetensors").read_text() == "adapter"
    assert (layout.ANCHOR / "adapter/adapter_model.safetensors").read_text() == "first"
    assert verify_manifest(layout.ANCHOR) == first
    facts = json.loads((layout.CHAMPION / "champion.json").read_text())
    assert (facts["anchor"], facts["spent"]) == (anchor, {"dialogue_nll": 2})
    verify_manifest(layout.CHAMPION)


def test_a_version_trained_over_another_base_is_refused_and_the_way_out_is_named(project: Path) -> None:
    point("version", "3", lay_version("0" * 64))
    with pytest.raises(PointerError, match=r"version 3, .* another base model .* Put its base model back"):
        champion()
    assert not layout.CHAMPION.exists()


@pytest.mark.parametrize(("text", "cause"), [("other", "changed: adapter/weights"), ("same", "not what its name says")])
def test_weights_that_are_not_what_their_name_says_are_refused(project: Path, text: str, cause: str) -> None:
    folder = layout.WEIGHTS / ("a" * 64)
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/weights").write_text("same")
    write_manifest(folder)
    (folder / "adapter/weights").write_text(text)
    point("version", "3", "a" * 64)
    with pytest.raises(PointerError, match=cause):
        champion()
    assert not layout.CHAMPION.exists()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('{"kind": "version", "version": "1", "digest": null}', "needs the SHA-256"),
        ('{"kind": "version", "version": "1", "digest": "../../x"}', "needs the SHA-256"),
        ('{"kind": "newest", "version": "1"}', "'base' or 'version'"),
        ("not json", "Invalid JSON"),
    ],
)
def test_a_malformed_pointer_is_refused(project: Path, text: str, cause: str) -> None:
    layout.STATE.mkdir()
    layout.CHAMPION_POINTER.write_text(text)
    with pytest.raises(PointerError, match=cause):
        read_pointer()
