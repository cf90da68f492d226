"""The digest of a release's inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.files import folder_digest
from tasks.registry.inputs import inputs_digest

FILES = (
    "params.yaml",
    "dvc.yaml",
    "tasks/train/sft/stage.py",
    "infra/locks/main.txt",
    "domains/d/domain.yaml",
    "state/feedback.json",
    "state/forgotten.json",
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}: 1")
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_change_of_any_input_changes_the_digest(project: Path, name: str) -> None:
    before = inputs_digest("d", project)
    (project / name).write_text("changed: 2")
    assert inputs_digest("d", project) != before


@pytest.mark.parametrize(
    "name",
    ["tasks/train/__pycache__/sft.pyc", "domains/other/domain.yaml", "README.md", "state/champion.json"]
    + ["tasks/engine/client.py", "tasks/store/store.py"],
)
def test_what_shapes_nothing_leaves_the_digest_alone(project: Path, name: str) -> None:
    before = inputs_digest("d", project)
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("new")
    assert inputs_digest("d", project) == before


def test_how_the_platform_runs_shapes_no_version(project: Path) -> None:
    (project / "params.yaml").write_text("sft: {epochs: 1}\nserving: {port: 1}\n")
    before = inputs_digest("d", project)
    (project / "params.yaml").write_text("sft: {epochs: 1}\nserving: {port: 2}\nnightly: {cron: x}\n")
    assert inputs_digest("d", project) == before
    (project / "params.yaml").write_text("sft: {epochs: 2}\nserving: {port: 1}\n")
    assert inputs_digest("d", project) != before


def test_renaming_a_file_changes_a_folders_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    before = folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert folder_digest(tmp_path) != before and folder_digest(tmp_path / "none") is None
