"""A small repository to train in: the real domain and configurations, a two-layer model, a handful of examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.files import write_json, write_manifest
from tasks.records import Example, make_example, write_jsonl

Workspace = Callable[..., Path]


def an_example(number: int) -> Example:
    """Questions and answers of different lengths."""
    return make_example(
        instruction=f"What is rule {number}?",
        output=f"Rule {number} says: " + "build well " * (number % 7 + 1) + "and rest.",
        language="en",
        origin="human",
        source=("test",),
    )


@pytest.fixture
def workspace(root: Path, tiny_model: Path, tmp_path: Path) -> Workspace:
    """Builds the repository under tmp_path; `sft` overrides settings, the counts are examples."""

    def build(train: int = 11, validation: int = 3, **sft: Any) -> Path:
        for name in ("infra/accelerate", "infra/deepspeed", "domains/construction"):
            shutil.copytree(root / name, tmp_path / name)
        (tmp_path / ".flywheel").mkdir()
        (tmp_path / ".flywheel/packages").symlink_to(root / ".flywheel/packages")
        shutil.copytree(tiny_model, tmp_path / "data/base_model")
        settings = yaml.safe_load((root / "params.yaml").read_text())
        settings["sft"].update(sft)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
        write_json(tmp_path / "data/start/start.json", {"digest": None})
        write_manifest(tmp_path / "data/start")
        write_jsonl(tmp_path / "data/mix/train.jsonl", map(an_example, range(train)))
        write_jsonl(tmp_path / "data/mix/validation.jsonl", map(an_example, range(100, 100 + validation)))
        return tmp_path

    return build
