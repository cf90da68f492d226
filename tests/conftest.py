"""Shared fixtures: a small model cut from the real one, and a repository to run stages in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import layout

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(layout.OFFLINE)


@pytest.fixture(scope="module", autouse=True)
def no_tracking_store_of_another_module() -> Iterator[None]:
    """MLflow puts the store it is pointed at into the environment, where the next module would find it."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default domain's real base model as its stage writes it, made once a session unless it lies in data/."""
    built = ROOT / layout.BASE_MODEL
    if (built / "MANIFEST.json").is_file():
        return built
    from tasks.domain import load_domain
    from tasks.train.base_model import convert

    target = tmp_path_factory.mktemp("base") / "base_model"
    previous = Path.cwd()
    os.chdir(ROOT)
    try:
        convert(load_domain("construction"), target)
    finally:
        os.chdir(previous)
    return target


@pytest.fixture(scope="session")
def tiny_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real base model cut down to its first two layers, with tokenizer and manifest: seconds, not minutes."""
    from transformers import AutoModelForCausalLM

    from tasks.files import write_manifest

    target = tmp_path_factory.mktemp("tiny") / "model"
    shutil.copytree(base_model, target, ignore=shutil.ignore_patterns("MANIFEST.json", "model.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(base_model, num_hidden_layers=2)
    model.save_pretrained(target)
    write_manifest(target)
    return target
