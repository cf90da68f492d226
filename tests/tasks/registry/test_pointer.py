"""Fetching the champion's weights from a real registry, and pointing at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.files import verify_manifest, write_manifest
from tasks.core.pointers import read_pointer
from tasks.registry.pointer import ChampionUnavailable, refresh_pointer
from tasks.registry.runs import open_run
from tasks.registry.versions import Registry


def champion_of(registry: Registry, folder: Path) -> str:
    """Put a package of one file into the registry and make it champion by override; returns its digest."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter/adapter_model.safetensors").write_text("adapter")
    digest = write_manifest(folder)
    run_id = open_run(registry.client, registry.home, registry.domain, "inputs", "test")
    registry.client.log_artifacts(run_id, str(folder), "package")
    version = registry.register(run_id, {"manifest_sha256": digest, "verdict_sha256": "v", "verdict": "hold"})
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


def test_a_registry_whose_files_were_changed_is_refused_and_the_pointer_kept(
    registry: Registry, tmp_path: Path
) -> None:
    champion_of(registry, tmp_path / "package")
    version = registry.get("champion")
    registry.client.log_text(version.run_id, "forged", "package/adapter/adapter_model.safetensors")
    with pytest.raises(ChampionUnavailable, match="cannot be fetched"):
        refresh_pointer(registry, tmp_path)
    assert not (tmp_path / layout.CHAMPION_POINTER).exists()
