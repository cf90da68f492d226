"""The command line, on a real registry."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from flywheel.cli import main
from tasks.registry.runs import open_run
from tasks.registry.versions import Registry
from tests.mlflow_store import lay_mlflow
from tests.tasks.registry.test_backup import PUBLIC


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A project whose registry holds two versions: 1 was made champion by hand, 2 was held."""
    home = tmp_path_factory.mktemp("cli")
    (home / "infra").symlink_to(root / "infra")
    (home / "params.yaml").write_text((root / "params.yaml").read_text())
    patch = pytest.MonkeyPatch()
    patch.chdir(home)
    patch.delenv("MLFLOW_TRACKING_URI", raising=False)
    registry = Registry("construction", lay_mlflow(home))
    for number in ("1", "2"):
        run_id = open_run(registry.client, home, "construction", f"inputs {number}", "test")
        registry.client.log_param(run_id, "sft.epochs", {"1": "3", "2": "1"}[number])
        tags = {
            "manifest_sha256": number * 64,
            "verdict_sha256": number,
            "verdict": "hold",
            "git_sha": "abc",
            "dirty": "true",
        }
        registry.register(run_id, tags)
    registry.promote(registry.override(registry.get("1"), "the first"))
    yield home
    patch.undo()


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def run_json(*arguments: str, status: int = 0) -> dict[str, Any]:
    return dict(json.loads(run(*arguments, "--json", status=status)))


def test_every_verb_has_help_and_json() -> None:
    for name, verb in main.commands.items():
        assert run(name, "--help").startswith("Usage:")
        assert any("--json" in option.opts for option in verb.params if isinstance(option, click.Option)), name


def test_help_imports_nothing_heavy(root: Path) -> None:
    code = (
        "import sys\nfrom flywheel.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('mlflow', 'prefect', 'dvc', 'torch', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.DEVNULL).returncode == 0


def test_a_version_is_traced_to_its_commit_and_settings(home: Path) -> None:
    found = run_json("trace", "champion")
    assert [found[key] for key in ("version", "git_sha", "dirty")] == ["1", "abc", True]
    assert found["params"] == {"sft.epochs": "3"}
    assert "  sft.epochs               3" in run("trace", "1")  # params.yaml says 1
    assert "sft.epochs" not in run("trace", "2") and "  sft.epochs               1" in run("trace", "2", "--all")


def test_a_held_version_is_refused_with_the_reason_and_promoted_by_a_person_until_a_rollback(home: Path) -> None:
    assert "verdict cannot be read" in run_json("promote", "2", status=1)["error"]
    assert run("promote", "7", status=1).strip().endswith("there are: 2, 1")
    assert run_json("promote", "candidate", "--override", "seen by a person")["previous"] == "1"
    told = run_json("rollback")
    assert (told["champion"]["version"], told["previous"]) == ("1", "2")
    assert "champion" in told["champion"]["aliases"]


def test_a_wrong_call_is_told_in_json_too(home: Path) -> None:
    for call in (["promote"], ["rollback", "--colour"], ["compare", "1", "2", "--retrieval", "on"]):
        told = CliRunner().invoke(main, [*call, "--json"])
        assert told.exit_code == 2 and json.loads(told.stdout)["error"] and "Usage:" in told.stderr


def test_a_folder_that_cannot_be_written_to_ends_a_verb_in_words(home: Path) -> None:
    assert "Not a directory" in run_json("backup", "params.yaml/file", "--recipient", PUBLIC, status=1)["error"]


def test_keys_are_made_where_a_project_is_alone(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "params.yaml: the file does not exist" in run_json("keys", "add", "anna", status=1)["error"]
    assert not [*tmp_path.iterdir()]


def test_a_card_without_a_release_says_what_to_do(home: Path) -> None:
    assert "make run" in run_json("card", status=1)["error"]


def test_a_domain_is_not_built_from_a_folder_that_is_not_there(home: Path) -> None:
    result = CliRunner().invoke(main, ["new-domain", "house", "--from", "nowhere", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)["error"].endswith("nowhere is not a folder")
