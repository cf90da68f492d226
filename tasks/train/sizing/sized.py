"""One training with all that its sizes follow from."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tasks.train.run.job import TrainingJob
from tasks.train.sizing.companions import companions_of
from tasks.train.sizing.demand import Memory, Partition, Training, memory_of
from tasks.train.sizing.lengths import Row
from tasks.train.sizing.probe import Probe
from tasks.train.sizing.shapes import read_shape
from tasks.train.sizing.workload import Workload

# A run holds more than a probe saw: freed blocks of other sizes that the allocator keeps. Measured by bench_estimate.
GROWTH = 1.1


@dataclass(frozen=True)
class Sizing:
    """One job with all that its sizes follow from."""

    job: TrainingJob
    training: Training
    work: Workload
    machines: int
    probe: Probe | None
    rows: tuple[Row, ...]  # what `work` was planned from, learnt from and only measured on
    checked: tuple[Row, ...]

    @property
    def ranks_here(self) -> int:
        """Processes on each machine."""
        return max(1, self.job.processes // self.machines)

    @property
    def memory(self) -> Memory:
        """Bytes of one process; after a probe its peak is what was measured, and `runtime` takes up the difference."""
        found = memory_of(self.training, self.work.largest)
        if self.probe is None:
            return found
        known = found.total - found.runtime
        return replace(found, runtime=max(0, int(self.probe.peak * GROWTH) - known))

    @property
    def needed(self) -> int:
        """Bytes that the processes of one machine take together: of main memory on CPU, of each GPU otherwise."""
        if not self.training.on_cpu:
            return self.memory.total
        if self.probe is not None:
            return int(self.probe.peak_total * GROWTH)
        return self.memory.total * self.ranks_here


def partition_of(launch: dict[str, Any]) -> Partition:
    """How the launch's DeepSpeed configuration shares the state out."""
    path = (launch.get("deepspeed_config") or {}).get("deepspeed_config_file")
    zero = json.loads(Path(path).read_text(encoding="utf-8")).get("zero_optimization", {}) if path else {}
    return Partition(
        stage=int(zero.get("stage", 0)),
        processes=int(launch["num_processes"]),
        offload_optimiser=_offloads(zero, "offload_optimizer"),
        offload_weights=_offloads(zero, "offload_param"),
    )


def _offloads(zero: dict[str, Any], part: str) -> bool:
    return (zero.get(part) or {}).get("device", "none") != "none"


def training_of(job: TrainingJob, launch: dict[str, Any]) -> Training:
    """The job as the formulas see it."""
    precision: Literal["fp32", "bf16"] = "bf16" if job.settings.precision == "bf16" else "fp32"
    return Training(
        shape=read_shape(job.base_model),
        method=job.settings.method,
        section=job.method_section(),
        precision=precision,
        partition=partition_of(launch),
        on_cpu=bool(launch.get("use_cpu")),
        beside=companions_of(job),
    )
