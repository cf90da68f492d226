"""What a training stage leaves for the next, in one folder with a manifest: `adapter`, `model` or `none`."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, fresh_directory, sha256_file, verify_manifest, write_json, write_manifest
from tasks.core.pointers import ADAPTER, MODEL, REFERENCE, adapter_to_continue, weights_to_continue

Kind = Literal["adapter", "model", "none"]
KINDS: tuple[Kind, ...] = ("adapter", "model", "none")
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
NOT_CROSSING = ("result.json", "training_args.bin", "README.md", "MANIFEST.json")  # of what a worker leaves


class TrainedError(FlywheelError):
    """A training stage's output is missing or not one of the three kinds."""


@dataclass(frozen=True)
class Weights:
    """A model to begin from: whole weights, and an adapter over them where there is one."""

    base: Path
    base_digest: str
    adapter: Path | None = None

    @property
    def adapter_digest(self) -> str | None:
        """SHA-256 over the adapter's weights and configuration, which has their scale."""
        if self.adapter is None:
            return None
        return digest_of([sha256_file(self.adapter / name) for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG)])


def kind_of(stage: Path) -> Kind:
    """What a stage left, its manifest checked. Raises TrainedError: none of the three kinds, or more than one."""
    found = [kind for kind in KINDS if (stage / kind).is_dir()]
    if len(found) != 1:
        raise TrainedError(f"{stage} holds {' and '.join(found) or 'nothing'}; run the stage {stage.name} again")
    verify_manifest(stage / found[0])
    return found[0]


def base_model() -> Weights:
    """The domain's base model."""
    return Weights(layout.BASE_MODEL, verify_manifest(layout.BASE_MODEL))


def before_sft() -> Weights:
    """What SFT begins from: a champion's adapter or weights, else what pretraining left, else the base model."""
    base = base_model()
    if adapter := adapter_to_continue():
        return replace(base, adapter=adapter)
    if model := weights_to_continue():
        return Weights(model, verify_manifest(model))
    return _after(base, layout.PRETRAIN)


def after_sft() -> Weights:
    """The SFT policy, which alignment begins from and is held to."""
    return _after(before_sft(), layout.SFT)


def held_to() -> Weights | None:
    """The first champion of a line of nights, which DPO and KTO are held to; None: to the SFT policy itself."""
    verify_manifest(layout.START)
    adapter, model = REFERENCE / ADAPTER.name, REFERENCE / MODEL.name
    if model.is_dir():
        return Weights(model, verify_manifest(model))
    return replace(base_model(), adapter=adapter) if adapter.is_dir() else None


def final() -> Weights:
    """What is packaged: the aligned policy, or the SFT policy where alignment is off."""
    return _after(after_sft(), layout.ALIGN)


def _after(before: Weights, stage: Path) -> Weights:
    kind = kind_of(stage)
    if kind == "none":
        return before
    if kind == "model":
        return Weights(stage / "model", verify_manifest(stage / "model"))
    return replace(before, adapter=stage / "adapter")


def clean_config(config: dict[str, Any], base_name: str) -> dict[str, Any]:
    """An adapter configuration without paths, its sets (which come in any order) sorted."""

    def is_set_of_names(value: Any) -> bool:
        return isinstance(value, list) and all(isinstance(item, str) for item in value)

    cleaned = {key: sorted(value) if is_set_of_names(value) else value for key, value in config.items()}
    return {**cleaned, "base_model_name_or_path": base_name}


def write_trained(source: Path, stage: Path, base_name: str) -> str:
    """Put what the workers left in a stage's place, whole or not at all; returns its digest."""
    config = source / ADAPTER_CONFIG
    kind: Kind = "adapter" if config.is_file() else "model"
    shutil.rmtree(stage, ignore_errors=True)
    with fresh_directory(stage / kind) as folder:
        for path in source.iterdir():
            crosses = path.name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG) or kind == "model"
            if path.is_file() and crosses and path.name not in NOT_CROSSING:
                shutil.copyfile(path, folder / path.name)
        if kind == "adapter":
            value = json.loads(config.read_text(encoding="utf-8"))
            write_json(folder / ADAPTER_CONFIG, clean_config(value, base_name))
        return write_manifest(folder)


def write_nothing(stage: Path, why: str) -> str:
    """Say that a stage is switched off; returns the sentence, for the stage to end with."""
    shutil.rmtree(stage, ignore_errors=True)
    with fresh_directory(stage / "none") as folder:
        write_json(folder / "why.json", {"why": why})
        write_manifest(folder)
    return f"switched off: {why}"
