"""Worktrees: code from HEAD, state and dvc.lock from the release branch, results committed there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flows.workspace import WorkspaceError, commit_results, git, is_dirty, open_workspace
from tests.flows.toy import commit, make_toy


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy(tmp_path_factory.mktemp("workspace") / "toy")


def test_results_stay_on_the_branch_while_code_follows_head(project: Path) -> None:
    """A release writes state and dvc.lock; then main moves on; the next workspace has both."""
    first = open_workspace(project, "toy")
    assert first.root == project / ".flywheel/workspaces/toy" and first.branch == "release/toy"
    (first.root / "state/champion.json").write_text('{"kind": "base", "version": "base", "digest": null}\n\n')
    (first.root / "dvc.lock").write_text("schema: '2.0'\n")
    released = commit_results(first, "a release")
    assert git(project, "rev-parse", "release/toy") == released
    assert not is_dirty(first, [])

    (project / "domains/toy/source.txt").write_text("newer text\n")
    (project / "state/champion.json").write_text("main's own\n")
    head = commit(project, "newer source")
    second = open_workspace(project, "toy")
    assert (second.root / "domains/toy/source.txt").read_text() == "newer text\n"
    assert (second.root / "state/champion.json").read_text().endswith("\n\n")
    assert (second.root / "dvc.lock").read_text() == "schema: '2.0'\n"
    assert git(project, "merge-base", head, "release/toy") == head
    assert (project / "domains/toy/source.txt").read_text() == "newer text\n"
    assert git(project, "symbolic-ref", "--short", "HEAD") == "main"


def test_a_workspace_that_was_deleted_is_made_again(project: Path) -> None:
    place = open_workspace(project, "other")
    shutil.rmtree(place.root)
    assert (open_workspace(project, "other").root / "params.yaml").is_file()


def test_what_was_left_lying_in_a_workspace_is_undone(project: Path) -> None:
    place = open_workspace(project, "left")
    (place.root / "params.yaml").write_text("half written")
    open_workspace(project, "left")
    assert "domain: toy" in (place.root / "params.yaml").read_text()


def test_learned_documents_are_there_before_they_are_committed_and_gone_when_they_are_taken_out(project: Path) -> None:
    kept = project / "domains/toy/sources/learned"
    kept.mkdir(parents=True)
    (kept / "sauna.md").write_text("Hot.")
    brought = open_workspace(project, "toy").root / "domains/toy/sources/learned"
    assert [path.name for path in brought.iterdir()] == ["sauna.md"]
    shutil.rmtree(kept)
    open_workspace(project, "toy")
    assert not brought.exists()


def test_workspaces_share_one_cache(project: Path) -> None:
    place = open_workspace(project, "toy")
    assert str(project / ".dvc/cache") in (place.root / ".dvc/config.local").read_text()


def test_a_checkout_is_dirty_by_others_changes_and_not_by_its_own_outputs(tmp_path: Path) -> None:
    project = make_toy(tmp_path / "toy")
    place = open_workspace(project, None)
    (project / "dvc.lock").write_text("new")
    (project / "state/champion.json").write_text("new")
    (project / "made.txt").write_text("a stage's output")
    assert not is_dirty(place, ["made.txt"])
    assert is_dirty(place, [])
    (project / "made.txt").unlink()
    (project / "params.yaml").write_text("domain: toy\n")
    assert is_dirty(place, [])


def test_a_folder_without_git_has_no_commit_and_is_refused_as_a_workspace(tmp_path: Path) -> None:
    place = open_workspace(tmp_path, None)
    assert commit_results(place, "x") == "" and is_dirty(place, [])
    with pytest.raises(WorkspaceError, match="not a git repository"):
        open_workspace(tmp_path, "toy")
