"""One training, described whole: what a stage hands to its worker processes.

Its digest, with the content of its files and the libraries' versions, names the folder of checkpoints: a run goes on
only if nothing that shapes the weights has changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict

from tasks.core import layout
from tasks.core.files import digest_of, sha256_file, write_json
from tasks.core.graph import code_digest
from tasks.core.settings import Section
from tasks.core.training_params import MethodsParams, TrainingParams

LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "deepspeed")
# Settings that move checkpoints in time or start a run again, but leave the weights as they are.
SHAPELESS = ("save_every", "max_restarts")


class TrainingJob(BaseModel):
    """What a worker needs, paths relative to the repository; stages add `settings`, with the precision resolved."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    code: ClassVar[tuple[str, ...]] = ()  # the folders of tasks/ that this training's workers run
    worker: ClassVar[str] = ""  # the module that each process runs
    plot: ClassVar[Path] = layout.PLOTS / "training.csv"  # of the curve
    columns: ClassVar[str] = "step,split,loss"  # of the plot

    stage: str
    base_model: Path
    base_digest: str
    data: dict[str, Path]  # the files that are learnt from and measured on, by name
    system: str
    seed: int
    processes: int
    settings: TrainingParams
    method: dict[str, Any]  # the settings of `settings.method`
    start: Path | None = None  # an adapter to go on from
    start_digest: str | None = None
    drawn: bool = True  # whether the plot is redrawn while it trains
    launch_files: dict[str, str]  # path → SHA-256 of the accelerate and DeepSpeed files

    def method_section(self) -> Section:
        """The typed settings of the method."""
        kind: Any = MethodsParams.model_fields[self.settings.method].annotation
        section: Section = kind.model_validate(self.method)
        return section

    def digest(self) -> str:
        """SHA-256 over all that shapes the weights."""
        described = self.model_dump(mode="json", exclude={"settings": set(SHAPELESS)})
        data = {name: sha256_file(path) for name, path in self.data.items()}
        return digest_of([described, data, code_digest(*self.code), [version(name) for name in LIBRARIES]])

    def write(self, path: Path) -> None:
        """Write the job for the workers to read."""
        write_json(path, self.model_dump(mode="json"))


Job = TypeVar("Job", bound=TrainingJob)


def read_job(path: Path, kind: type[Job]) -> Job:
    """The job a stage wrote."""
    return kind.model_validate_json(path.read_text(encoding="utf-8"))


def launch_files(name: str, settings: dict[str, Any], configs: Path) -> dict[str, str]:
    """SHA-256 of the files that say on what, and in which precision and partition, a launch computes."""
    paths = [configs / f"{name}.yaml"]
    if deepspeed := (settings.get("deepspeed_config") or {}).get("deepspeed_config_file"):
        paths.append(Path(deepspeed))
    return {path.as_posix(): sha256_file(path) for path in paths}


def read_result(folder: Path) -> dict[str, Any]:
    """What the workers noted beside the weights: history, counts."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result


def curves(rows: Iterable[Iterable[Any]], columns: str) -> str:
    """Rows of step, curve and value as CSV."""
    return "\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n"
