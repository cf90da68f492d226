"""One supervised fine-tuning, described whole: what the stage hands to its worker processes.

The description's digest, together with the content of every file it names and the versions of the libraries, is the
name of the checkpoint folder: a run goes on from a checkpoint only if nothing that shapes the weights has changed.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.files import digest_of, sha256_file, write_json
from tasks.params import SftParams

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed")
TASKS = Path(__file__).parent.parent
SOURCES = ("prompts.py", "train/batches.py", "train/job.py", "train/sft_worker.py", "train/trainer.py")
# Settings that move checkpoints in time, but not the weights.
SHAPELESS = ("save_every",)


class SftJob(BaseModel):
    """Everything a worker needs. Paths are relative to the repository root, the working directory of every process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_model: Path
    train: Path
    validation: Path
    system: str
    seed: int
    processes: int
    settings: SftParams
    base_digest: str
    start: Path | None = None  # an adapter to go on from
    start_digest: str | None = None
    launch_files: dict[str, str]  # path → SHA-256 of the accelerate and DeepSpeed files

    def digest(self) -> str:
        """SHA-256 over all that shapes the weights."""
        described = self.model_dump(mode="json", exclude={"settings": set(SHAPELESS)})
        data = [sha256_file(self.train), sha256_file(self.validation)]
        code = [sha256_file(TASKS / name) for name in SOURCES]
        return digest_of([described, data, code, [version(name) for name in LIBRARIES]])

    def write(self, path: Path) -> None:
        """Write the job for the workers to read."""
        write_json(path, self.model_dump(mode="json"))


def read_job(path: Path) -> SftJob:
    """The job a stage wrote."""
    return SftJob.model_validate_json(path.read_text(encoding="utf-8"))


def launch_files(name: str, settings: dict[str, Any], configs: Path) -> dict[str, str]:
    """SHA-256 of the files that say on what, and in which precision and partition, a launch computes."""
    paths = [configs / f"{name}.yaml"]
    deepspeed = (settings.get("deepspeed_config") or {}).get("deepspeed_config_file")
    if deepspeed:
        paths.append(Path(deepspeed))
    return {path.as_posix(): sha256_file(path) for path in paths}


def read_result(folder: Path) -> dict[str, Any]:
    """What the workers noted beside the weights: history, counts."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result
