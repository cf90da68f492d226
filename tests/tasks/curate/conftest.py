"""A place to run one stage in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SetParams = Callable[[str, dict[str, Any]], None]


@pytest.fixture
def set_params(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetParams:
    """The current folder becomes one with the domains; returns what changes a section of its params.yaml."""
    (tmp_path / ".flywheel").mkdir()
    for name in ("domains", "infra", ".flywheel/packages"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)

    def change(section: str, changes: dict[str, Any]) -> None:
        settings = yaml.safe_load((root / "params.yaml").read_text())
        settings[section] |= changes
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))

    return change
