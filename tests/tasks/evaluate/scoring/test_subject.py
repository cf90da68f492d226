"""Only a model that matches its manifest, and cannot run code when it is loaded, is evaluated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.core.package import PackageUnreadable
from tasks.evaluate.scoring.subject import SubjectError, base_alone, load_subject, tokenizer_digest


def write_adapter(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"weights")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A base, a package over it and the base as champion, with manifests; returns the base's digest."""
    monkeypatch.chdir(tmp_path)
    layout.BASE_MODEL.mkdir(parents=True)
    (layout.BASE_MODEL / "model.safetensors").write_bytes(b"base")
    digest = write_manifest(layout.BASE_MODEL)
    write_adapter(layout.PACKAGE / "adapter")
    write_own_words(layout.PACKAGE, digest)
    write_manifest(layout.PACKAGE)
    write_champion({"kind": "base", "version": "base", "digest": digest})
    return digest


def write_own_words(folder: Path, base: str, system: str = "Be brief.") -> None:
    """What a package tells of itself: its base model and its prompt."""
    write_json(folder / "base.json", {"digest": base})
    write_json(folder / "prompt.json", {"system": system})


def write_champion(facts: dict[str, str]) -> None:
    write_json(layout.CHAMPION / "champion.json", facts)
    write_manifest(layout.CHAMPION)


def test_the_candidate_is_the_package_over_the_base_and_its_other_files_are_no_part_of_its_identity(
    repository: str,
) -> None:
    found = load_subject("candidate")
    assert (found.version, found.base_digest, found.adapter) == (None, repository, layout.PACKAGE / "adapter")
    assert found.digest not in (repository, found.adapter_digest)
    (layout.PACKAGE / "README.md").write_text("card")
    write_manifest(layout.PACKAGE)
    after = load_subject("candidate")
    assert after.identity == found.identity and after.digest != found.digest


def test_a_base_champion_has_no_adapter(repository: str) -> None:
    found = load_subject("champion")
    assert (found.version, found.digest, found.adapter, found.system) == ("base", repository, None, None)
    assert found.identity == base_alone("pilot").identity == {"base": repository, "adapter": None}


def make_version_champion(base: str, system: str = "Be brief.") -> None:
    """Version 3, whose parts lie in data/champion already."""
    write_own_words(layout.CHAMPION, base, system)
    write_champion({"kind": "version", "version": "3", "digest": "d" * 64})


def test_a_version_is_its_adapter_over_the_base_and_equal_adapters_are_one_identity(repository: str) -> None:
    write_adapter(layout.CHAMPION / "adapter")
    make_version_champion(repository)
    found = load_subject("champion")
    assert (found.version, found.digest, found.adapter) == ("3", "d" * 64, layout.CHAMPION / "adapter")
    assert found.identity == load_subject("candidate").identity
    make_version_champion(repository, system="")
    assert (load_subject("candidate").system, load_subject("champion").system) == ("Be brief.", "")


@pytest.mark.parametrize("name", ["adapter/adapter_model.bin", "modeling.py", "adapter/x.pt"])
def test_a_file_that_can_run_code_and_an_incomplete_adapter_are_refused(repository: str, name: str) -> None:
    (layout.PACKAGE / name).write_bytes(b"")
    write_manifest(layout.PACKAGE)
    with pytest.raises(SubjectError, match="can run code"):
        load_subject("candidate")
    (layout.PACKAGE / name).unlink()
    (layout.PACKAGE / "adapter/adapter_model.safetensors").unlink()
    write_manifest(layout.PACKAGE)
    with pytest.raises(SubjectError, match=r"lacks adapter_model\.safetensors"):
        load_subject("candidate")


def test_what_was_trained_over_another_base_or_over_a_changed_one_is_refused(repository: str) -> None:
    write_json(layout.PACKAGE / "base.json", {"digest": "0" * 64})
    write_manifest(layout.PACKAGE)
    write_champion({"kind": "base", "version": "base", "digest": "0" * 64})
    for who in ("candidate", "champion"):
        with pytest.raises(SubjectError, match="another base model"):
            load_subject(who)
    write_adapter(layout.CHAMPION / "adapter")
    make_version_champion("0" * 64)
    with pytest.raises(SubjectError, match="another base model than the one here; run the stage champion again"):
        load_subject("champion")
    (layout.BASE_MODEL / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(SubjectError, match="changed"):
        load_subject("candidate")


@pytest.mark.parametrize("who, folder", [("candidate", layout.PACKAGE), ("champion", layout.CHAMPION)])
@pytest.mark.parametrize("name", ["base.json", "prompt.json"])
def test_a_package_that_does_not_say_what_it_was_trained_over_and_with_is_refused(
    repository: str, who: Any, folder: Path, name: str
) -> None:
    write_adapter(layout.CHAMPION / "adapter")
    make_version_champion(repository)
    (folder / name).write_text("{}")
    for changed in (layout.PACKAGE, layout.CHAMPION):
        write_manifest(changed)
    with pytest.raises(PackageUnreadable, match=rf"{name} cannot be read"):
        load_subject(who)


def test_a_tokenizer_is_told_by_its_files_and_by_its_chat_template_and_by_nothing_else(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json", "model.safetensors"):
        (tmp_path / name).write_text(name)
    found = [tokenizer_digest(tmp_path)]
    for name in ("model.safetensors", "tokenizer.json", "chat_template.jinja"):
        (tmp_path / name).write_text("other")
        found.append(tokenizer_digest(tmp_path))
    assert found[0] == found[1] and len(set(found)) == 3


def write_weights(folder: Path, kind: str = "weights") -> str:
    """A package with weights of its own; returns their digest."""
    (folder / "model").mkdir(parents=True)
    (folder / "model/model.safetensors").write_bytes(b"own weights")
    digest = write_manifest(folder / "model")
    write_json(folder / "kind.json", {"served_as": kind, "why": "because"})
    return digest


def test_whole_weights_stand_in_the_place_of_the_base_in_a_candidate_and_in_the_champion_it_becomes(
    repository: str,
) -> None:
    digest = write_weights(layout.PACKAGE, "nothing")
    write_manifest(layout.PACKAGE)
    found = load_subject("candidate")  # virtual tokens over them are measured, and say why nothing serves them
    assert (found.base_digest, found.adapter) == (digest, layout.PACKAGE / "adapter")
    assert found.unservable == "because"
    shutil.rmtree(layout.PACKAGE / "adapter")
    shutil.rmtree(layout.PACKAGE / "model")
    digest = write_weights(layout.PACKAGE)
    write_manifest(layout.PACKAGE)
    found = load_subject("candidate")
    assert (found.base, found.adapter, found.unservable) == (layout.PACKAGE / "model", None, "")
    assert found.identity == {"base": digest, "adapter": None}
    write_weights(layout.CHAMPION)
    make_version_champion(repository)
    assert load_subject("champion").identity == found.identity
    (layout.PACKAGE / "model/model.safetensors").write_bytes(b"other weights")
    write_manifest(layout.PACKAGE)
    with pytest.raises(SubjectError, match=r"changed: model\.safetensors"):
        load_subject("candidate")
