"""What dvc.yaml says of the stages: which there are, in which order, and which read what."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tasks.core.files import digest_of, sha256_file

GRAPH = Path(__file__).resolve().parents[2] / "dvc.yaml"
TASKS = Path(__file__).parents[1]
LEFT_OUT = {"__pycache__", ".DS_Store"}


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


def code_digest(*folders: str) -> str:
    """SHA-256 over the files in these folders of tasks/. Raises FileNotFoundError: one of them is not there."""
    found: dict[str, str] = {}
    for folder in folders:
        if not (TASKS / folder).is_dir():
            raise FileNotFoundError(f"{TASKS / folder} is no folder of ours")
        paths = (path for path in (TASKS / folder).rglob("*") if not LEFT_OUT.intersection(path.parts))
        found |= {path.relative_to(TASKS).as_posix(): sha256_file(path) for path in paths if path.is_file()}
    return digest_of(found)
