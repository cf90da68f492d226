"""What the layers of pyproject.toml (import-linter) do not see: docstrings, names, and tests that are no package."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_says_why_it_exists_and_none_is_called_utils() -> None:
    for folder in ("tasks", "flows", "flywheel", "serving"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path}: no docstring"
            assert path.stem not in {"utils", "common", "helpers", "misc"}, path


def test_the_tests_have_no_init_files() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
