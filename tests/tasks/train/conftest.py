"""A small repository to train in: the real domain and configurations, a two-layer model, a handful of examples."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.files import write_json, write_manifest
from tasks.core.records import Example, make_example
from tests.training import lay_training

Workspace = Callable[..., Path]
VOCABULARY = 1024  # the first tokens of the real vocabulary; their merges build on each other only


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


@pytest.fixture(scope="session")
def small(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-layer model with fewer tokens: to read them from a GGUF file, or to save all weights, takes long."""
    from transformers import AutoModelForCausalLM

    target = tmp_path_factory.mktemp("small") / "model"
    shutil.copytree(tiny_model, target, ignore=shutil.ignore_patterns("MANIFEST.json", "model.safetensors"))
    content = json.loads((tiny_model / "tokenizer.json").read_text())
    vocabulary = {token: number for token, number in content["model"]["vocab"].items() if number < VOCABULARY}
    merges = [pair for pair in content["model"]["merges"] if {*pair, "".join(pair)} <= vocabulary.keys()]
    content["model"] |= {"vocab": vocabulary, "merges": merges}
    write_json(target / "tokenizer.json", content)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(VOCABULARY)
    model.save_pretrained(target)
    write_manifest(target)
    return target
