"""A small repository to train in: the real domain and configurations, a two-layer model, a handful of examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.records import Example, make_example
from tests.training import lay_training

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
def workspace(root: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """Builds the repository under tmp_path and enters it; `sft` overrides settings, the counts are examples."""

    def build(train: int = 11, validation: int = 3, **sft: Any) -> Path:
        rows = map(an_example, range(train)), map(an_example, range(100, 100 + validation))
        monkeypatch.chdir(lay_training(tmp_path, root, tiny_model, *rows, sft))
        return tmp_path

    return build
