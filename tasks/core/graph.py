"""What dvc.yaml says of the stages: which there are, in which order, and which read what."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

GRAPH = Path(__file__).resolve().parents[2] / "dvc.yaml"


@functools.cache
def _stages() -> dict[str, Any]:
    import yaml

    found: dict[str, Any] = yaml.safe_load(GRAPH.read_text(encoding="utf-8"))["stages"]
    return found


def _reads(stage: str) -> list[str]:
    """What a stage depends on; a graph of one's own may lack the stage, and a stage may read nothing."""
    return list(_stages().get(stage, {}).get("deps", ()))


def data_stages() -> tuple[str, ...]:
    """The stages whose receipts add up to reports/receipt.parquet, in the order in which examples pass them."""
    read = _reads("receipt")
    return tuple(name for name in _stages() if f"data/{name}" in read)


def training_stages() -> tuple[str, ...]:
    """The stages that train under DeepSpeed, in order."""
    return tuple(name for name in _stages() if "infra/deepspeed" in _reads(name))
