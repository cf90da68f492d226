"""Imports run one way: tasks → nothing of ours above it; flows and serving meet only outside the process."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What no file of a folder may import, anywhere in it, inside functions too.
FORBIDDEN = {
    "tasks": {"flows", "serving", "flywheel", "prefect", "dvc"},
    "flows": {"serving", "flywheel"},
    "serving": {"flows", "flywheel"},
}
# Stage modules read and write files; only the registry speaks to MLflow, only the store to the database.
ONLY_IN = {"mlflow": "tasks/registry", "sqlalchemy": "tasks/store", "alembic": "tasks/store", "httpx": "tasks/engine"}
NETWORKED = ("requests", "aiohttp")


def imported(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
        elif isinstance(node, ast.ImportFrom):
            names.add("." * node.level)
    return names


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_no_import_runs_against_the_house(folder: str) -> None:
    wrong = {str(path.relative_to(ROOT)): roots(path) & FORBIDDEN[folder] for path in sources(folder)}
    assert {path: names for path, names in wrong.items() if names} == {}


@pytest.mark.parametrize("package", ONLY_IN)
def test_live_systems_are_reached_from_one_room(package: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in sources("tasks")
        if package in roots(path) and not str(path.relative_to(ROOT)).startswith(ONLY_IN[package])
    ]
    assert wrong == []


def test_no_task_opens_a_network_connection_by_itself() -> None:
    wrong = [str(path.relative_to(ROOT)) for path in sources("tasks") if roots(path) & set(NETWORKED)]
    assert wrong == []


def test_every_module_says_why_it_exists_and_none_is_called_utils() -> None:
    for folder in ("tasks", "flows", "flywheel", "serving"):
        for path in sources(folder):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: no docstring"
            assert path.stem not in {"utils", "common", "helpers", "misc"}, path


def test_every_package_of_ours_is_listed_for_installation() -> None:
    listed = set(re.findall(r'^    "([a-z_.]+)",$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE))
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("tasks", "flows", "flywheel", "serving")
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert found <= listed


def test_the_tests_have_no_init_files() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
