"""`flywheel use`: another base model in domain.yaml, all other text kept, and what was found said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flywheel.cli import main
from flywheel.use import UseError, with_entry
from tasks.core import layout
from tasks.core.domain import load_domain
from tests.families import lay_family

DOMAIN = Path("domains/construction/domain.yaml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_family(tmp_path_factory.mktemp("models") / "Tiny-1B", "gemma3_text")


@pytest.fixture
def project(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout's settings and domains, to write in."""
    shutil.copytree(root / "domains/construction", tmp_path / "domains/construction")
    shutil.copytree(root / "domains/construction", tmp_path / "domains/other")
    other = tmp_path / "domains/other/domain.yaml"
    other.write_text(other.read_text().replace("\nname: construction", "\nname: other"))
    (tmp_path / "infra").symlink_to(root / "infra")
    shutil.copy(root / "params.yaml", tmp_path)
    (tmp_path / ".flywheel").mkdir()
    (tmp_path / layout.PACKAGES).symlink_to(root / layout.PACKAGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLYWHEEL_NETWORK", raising=False)
    return tmp_path


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(main, ["use", *arguments], catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def test_a_folder_becomes_the_base_model_and_everything_else_stays_as_it_was(project: Path, model: Path) -> None:
    before = DOMAIN.read_text()
    said = run(str(model))
    after = DOMAIN.read_text()
    assert f"base_model:\n  path: {model}\n\nembedder:" in after
    head, _, rest = before.partition("base_model:")
    assert after.startswith(head) and after.endswith(rest.partition("\n\n")[2])
    assert load_domain("construction").base_model.path == str(model)
    for line in ("Gemma3ForCausalLM", "in bfloat16", "apache-2.0", "<pad>", "<end_of_turn>", "512 tokens", "make run"):
        assert line in said


def test_a_dry_run_writes_nothing_and_says_the_same(project: Path, model: Path) -> None:
    before = DOMAIN.read_text()
    found: dict[str, Any] = json.loads(run(str(model), "--dry-run", "--json"))
    assert DOMAIN.read_text() == before
    assert (found["entry"], found["written"], found["missing"]) == ({"path": str(model)}, False, [])
    assert (found["name"], found["end_of_turn"], found["context"]) == ("Tiny-1B", "<end_of_turn>", 512)


def test_what_is_still_missing_is_named_line_by_line_and_the_entry_stands(
    project: Path, model: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(model, tmp_path / "bare")
    (bare / "README.md").unlink()
    (bare / "chat_template.jinja").unlink()
    said = run("bare", status=1)
    assert "missing: bare says nowhere under which licence" in said and "missing: bare has no chat template" in said
    with DOMAIN.open("r+") as stream:
        text = stream.read().replace(f"  path: {bare}\n", f"  path: {bare}\n  licence: MIT\n")
        stream.seek(0)
        stream.write(text)
    assert load_domain("construction").base_model.licence == "MIT"
    assert "no chat template" not in run("bare", "--chat-template", "chatml", status=1)


def test_what_cannot_be_used_changes_nothing(project: Path, model: Path, tmp_path: Path) -> None:
    before = DOMAIN.read_text()
    (tmp_path / "empty").mkdir()
    revision = "a" * 40
    for arguments, said in (
        (["empty"], "empty holds no config.json"),
        (["nowhere"], "nowhere is no folder here, and no name of the hub"),
        (["org/model"], "FLYWHEEL_NETWORK=1"),
        (["org/model", "--revision", revision], "FLYWHEEL_NETWORK=1"),
        (["org/model", "--revision", "main"], "base_model.revision"),
        ([str(model), "--revision", revision], "is a folder"),
        ([str(model), "--domain", "medicine"], "domains here: construction, other"),
    ):
        assert said in run(*arguments, status=1)
        assert DOMAIN.read_text() == before


def test_a_snapshot_that_is_here_is_used_by_its_name_without_the_network(project: Path, model: Path) -> None:
    shutil.copytree(model, project / layout.HUB / "org--model" / ("a" * 40))
    assert "org/model" in run("org/model", "--revision", "a" * 40, "--domain", "other")
    assert load_domain("other").base_model.hub == "org/model"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a: 1\nbase_model: {name: x}  # old\nb: 2", "a: 1\nbase_model:\n  path: m\nb: 2\n"),
        (
            "base_model:\n  name: x\n\n# aside\n  files: [y]\n# b\nb: 2\n",
            "base_model:\n  path: m\n# aside\n# b\nb: 2\n",
        ),
        ("base_model:\n  # why\n  name: x\n\n\n# next\nb: 2\n", "base_model:\n  path: m\n  # why\n\n\n# next\nb: 2\n"),
    ],
)
def test_only_the_section_itself_is_written_anew(text: str, expected: str) -> None:
    assert with_entry(text, {"path": "m"}) == expected


def test_a_domain_without_a_base_model_is_refused() -> None:
    with pytest.raises(UseError, match="no section base_model"):
        with_entry("name: x\nmmlu:\n  base_model: y\n", {"path": "m"})
