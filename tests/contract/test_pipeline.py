"""dvc.yaml, params.yaml, the modules and the layout say the same."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.params import Params
from tasks.registry.inputs import OPERATIONAL_SECTIONS

ROOT = Path(__file__).resolve().parents[2]
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = PIPELINE["stages"]
MACHINE_PATH = re.compile(r"(?<![\w./])/(?:work|root|home|tmp|opt|Users)/")


def entries(stage: dict[str, Any], key: str) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in stage.get(key, [])]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_module_that_exists_and_depends_on_its_own_source(name: str) -> None:
    command = STAGES[name]["cmd"]
    module = re.fullmatch(r"\$\{python\} -m (tasks(?:\.\w+)+)( --who (candidate|champion))?", command)
    assert module, command
    source = Path(module[1].replace(".", "/") + ".py")
    assert importlib.util.find_spec(module[1]) is not None
    assert any(Path(dep) in (source, *source.parents) for dep in entries(STAGES[name], "deps"))


# What a training will take, told before it begins: no output depends on it.
AROUND = "tasks/train/sizing/"


@functools.cache
def imported(path: Path) -> set[Path]:
    """The modules of tasks that a module imports, inside functions too, or starts by their name."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"tasks(\.\w+)+", str(node.value)):
            names.add(str(node.value))
    found = {Path(name.replace(".", "/") + ".py") for name in names if name.startswith("tasks.")}
    return {path for path in found if (ROOT / path).is_file()}


def reached(name: str) -> set[Path]:
    """Every module of ours that a stage may import, but those that size it."""
    module = next(word for word in STAGES[name]["cmd"].split() if word.startswith("tasks."))
    found, waiting = set[Path](), {Path(module.replace(".", "/") + ".py")}
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting |= {other for other in imported(path) if not other.as_posix().startswith(AROUND)} - found
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_every_module_that_it_reaches(name: str) -> None:
    deps = {Path(dep) for dep in entries(STAGES[name], "deps")}
    assert {path.as_posix() for path in reached(name) if not deps & {path, *path.parents}} == set()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_names_its_code_by_folders_and_none_that_it_does_not_reach(name: str) -> None:
    folders = [Path(dep) for dep in entries(STAGES[name], "deps") if dep.startswith("tasks/")]
    assert [folder.as_posix() for folder in folders if not (ROOT / folder / "__init__.py").is_file()] == []
    parents = {parent for path in reached(name) for parent in path.parents}
    assert {folder.as_posix() for folder in folders} - {parent.as_posix() for parent in parents} == set()


@pytest.mark.parametrize("name", STAGES)
def test_what_a_stage_reads_is_in_the_repository_or_the_output_of_another(name: str) -> None:
    made = [out for stage in STAGES.values() for key in ("outs", "metrics", "plots") for out in entries(stage, key)]
    for dep in entries(STAGES[name], "deps"):
        path = dep.replace("${domain}", "construction")
        assert (ROOT / path).exists() or any(Path(out) in (Path(path), *Path(path).parents) for out in made), dep


@pytest.mark.parametrize("name", STAGES)
def test_the_params_of_a_stage_are_sections_of_the_settings(name: str) -> None:
    known = {field.alias or key for key, field in Params.model_fields.items()}
    assert {key.split(".")[0] for key in STAGES[name].get("params", [])} <= known


def test_every_section_is_read_by_a_stage_or_says_how_the_platform_runs() -> None:
    read = {key.split(".")[0] for stage in STAGES.values() for key in stage.get("params", [])}
    assert read | set(OPERATIONAL_SECTIONS) == {field.alias or key for key, field in Params.model_fields.items()}
    assert not read & set(OPERATIONAL_SECTIONS)


def test_the_outputs_are_the_paths_of_the_layout() -> None:
    known = {str(value) for value in vars(layout).values() if isinstance(value, Path)}
    for stage in STAGES.values():
        for out in entries(stage, "outs"):
            assert out in known or str(Path(out).parent) in known, out


def test_the_pointers_are_whole() -> None:
    from tasks.core.pointers import read_pointer

    assert read_pointer(ROOT).version
    assert json.loads((ROOT / layout.FEEDBACK_POINTER).read_text()).keys() == {"count", "digest", "watermark"}


def tracked_texts() -> list[tuple[str, str]]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, names.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".png", ".parquet"}:
            found.append((name, path.read_text(encoding="utf-8")))
    return found


def test_no_machine_path_is_in_the_repository() -> None:
    this = Path(__file__).name
    wrong = [(name, found[0]) for name, text in tracked_texts() if (found := MACHINE_PATH.findall(text))]
    assert [name for name, _ in wrong if not name.endswith(this)] == []


def test_no_lock_names_an_index() -> None:
    for path in (ROOT / layout.LOCKS).glob("*.txt"):
        text = path.read_text()
        assert "://" not in text and "--index" not in text and "--find-links" not in text, path
        assert re.search(r"\+cpu\b", text) is None, f"{path}: a local build cannot be had elsewhere"


@pytest.mark.parametrize(
    "package, bound", [("fastapi", (0, 150)), ("sqlalchemy", (2, 1)), ("mlflow", (3, 18)), ("prefect", (3, 9))]
)
def test_a_version_known_to_break_the_platform_is_not_locked(package: str, bound: tuple[int, int]) -> None:
    found = re.search(rf"^{package}==(\d+)\.(\d+)", (ROOT / layout.LOCKS / "main.txt").read_text(), flags=re.MULTILINE)
    assert found and (int(found[1]), int(found[2])) < bound
