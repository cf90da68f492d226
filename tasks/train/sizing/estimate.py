"""What a training will need before it starts: memory, disk, time, energy and money, here and on GPUs for hire.

From formulas (tasks/train/sizing/demand.py) over the real examples, corrected by three real steps where a probe has
been run (probe.py). `preflight` refuses, before the first step, what cannot fit, and says what would.
Limits: without a probe, times are good within a factor of two or three; GPUs that are not here are reckoned from
their vendors' figures in infra/prices.yaml.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import read_launch
from tasks.train.sizing.demand import GIB, Training, checkpoint_bytes, final_bytes
from tasks.train.sizing.duration import time_of
from tasks.train.sizing.hired import on_gpu
from tasks.train.sizing.machines import Prices, free_memory, gpu_free, read_prices
from tasks.train.sizing.probe import ProbeError, known_probe, run_probe
from tasks.train.sizing.sized import Sizing, training_of
from tasks.train.sizing.workload import read_rows, workload_of

KEPT_CHECKPOINTS = 3  # two, and the one that is being written
KEPT_RESULTS = 3  # the workers', the stage's own, and DVC's
PROBE_FROM_SECONDS = 1200.0  # a stage probes by itself only where the formula expects more than this
PROBE_FROM_SHARE = 0.5  # or where it expects more than this share of the free memory to be taken


class CannotFit(FlywheelError):
    """The training needs more memory or disk than there is."""


def size(job: TrainingJob, probe: Literal["always", "doubt", "known"] = "known") -> Sizing:
    """Size a job. `probe`: run one where none is known; only where the formula leaves doubt; or never.

    What the formula says cannot run here is not probed, nor what runs on several machines: it would wait for the
    others. A probe that fails leaves the formula, with a warning.

    Raises:
        ShapeError: the base model cannot be sized.
    """
    launch = read_launch(job.settings.launch)
    training, (rows, checked) = training_of(job, launch), read_rows(job)
    work, machines = workload_of(job, rows, checked), launch.get("num_machines", 1)
    found = Sizing(job, training, work, machines, known_probe(job), tuple(rows), tuple(checked))
    wanted = probe == "always" or (probe == "doubt" and in_doubt(found))
    if found.probe is not None or not wanted or machines > 1 or problems(found):
        return found
    try:
        return replace(found, probe=run_probe(job, training, rows, checked))
    except ProbeError as error:
        logging.getLogger(__name__).warning("%s; it is sized by formula alone, which may be off by far", error)
        return found


def in_doubt(sizing: Sizing) -> bool:
    """Whether three real steps are worth their time: for long runs, and where memory may not do but surely could."""
    free = available(sizing.training.on_cpu)
    close = PROBE_FROM_SHARE * free < sizing.needed <= free
    return close or time_of(sizing, read_prices())["seconds"] > PROBE_FROM_SECONDS


def available(on_cpu: bool) -> int:
    """Bytes free for training: main memory of this machine, or of its fullest GPU; 0 where there is none."""
    return free_memory() if on_cpu else min(gpu_free(), default=0)


def estimate_of(sizing: Sizing, prices: Prices) -> dict[str, Any]:
    """All that is said of one stage; docs/schemas/estimate.schema.json describes it. Bytes, seconds, kWh, money."""
    job, training, work = sizing.job, sizing.training, sizing.work
    took = time_of(sizing, prices)
    energy = prices.this_machine.power_watts * took["seconds"] / 3.6e6
    price = prices.this_machine.price_per_hour * took["seconds"] / 3600 + energy * prices.electricity_per_kwh
    trained, largest = training.trained, work.largest
    reasons = problems(sizing)
    return {
        "stage": job.stage,
        "method": job.settings.method,
        "launch": job.settings.launch,
        "precision": training.precision,
        "processes": job.processes,
        "parameters": {
            "all": training.shape.parameters,
            "trained": trained,
            "share": round(trained / (training.shape.parameters + (0 if training.method == "full" else trained)), 6),
        },
        "work": {
            "examples": work.examples,
            "tokens": work.tokens,
            "steps": len(work.steps),
            "largest_batch": {"rows": largest.rows, "tokens": largest.tokens, "scored": largest.scored},
        },
        "memory": {
            "per_process": sizing.memory.as_dict(),
            "needed": sizing.needed,
            "available": available(training.on_cpu),
        },
        "disk": {"needed": disk_needed(training), "available": disk_free()},
        "time": {key: round(value, 1) if isinstance(value, float) else value for key, value in took.items()},
        "energy_kwh": round(energy, 5),
        "cost": round(price, 4),
        "gpus": [on_gpu(sizing, gpu, prices) for gpu in prices.gpus],
        "fits": not reasons,
        "reasons": reasons,
        "would_fit": would_fit(sizing, prices) if reasons else [],
    }


def disk_needed(training: Training) -> int:
    """Bytes of checkpoints while it trains, and of what it leaves."""
    return KEPT_CHECKPOINTS * checkpoint_bytes(training) + KEPT_RESULTS * final_bytes(training)


def disk_free(folder: Path = layout.HOME) -> int:
    """Bytes free where checkpoints lie."""
    return shutil.disk_usage(folder if folder.is_dir() else Path()).free


def problems(sizing: Sizing) -> list[str]:
    """Why a job cannot run here, in sentences; empty where it can."""
    found = _on_processors(sizing) if sizing.training.on_cpu else _on_gpus(sizing)
    if (needed := disk_needed(sizing.training)) > (disk := disk_free()):
        found.append(f"checkpoints need {gib(needed)} of disk, and {gib(disk)} are free")
    return found


def _on_processors(sizing: Sizing) -> list[str]:
    free = available(on_cpu=True)
    return [f"it needs {gib(sizing.needed)} of main memory, and {gib(free)} are free"] if sizing.needed > free else []


def _on_gpus(sizing: Sizing) -> list[str]:
    """Too few of them, or too little memory on one of them, or beside them where ZeRO's offload keeps its part."""
    launch, gpus, wanted = sizing.job.settings.launch, gpu_free(), sizing.ranks_here
    if not gpus:
        return [f"launch {launch} needs GPUs, and there is none on this machine"]
    found = []
    if len(gpus) < wanted:
        found.append(f"launch {launch} needs {wanted} GPUs, and this machine has {len(gpus)}")
    if sizing.needed > min(gpus):
        found.append(f"it needs {gib(sizing.needed)} on each GPU, and {gib(min(gpus))} are free")
    if (host := sizing.memory.host * wanted) > (free := free_memory()):
        found.append(f"what is offloaded needs {gib(host)} of main memory, and {gib(free)} are free")
    return found


def would_fit(sizing: Sizing, prices: Prices) -> list[str]:
    """Changes under which the job would fit here, smallest first, then GPUs that hold it as it is."""
    from tasks.train.sizing.alternatives import alternatives

    here = list(islice((words for words, other in alternatives(sizing) if not problems(other)), 4))
    hired = [on_gpu(sizing, gpu, prices) for gpu in prices.gpus]
    return here + [f"{row['count']} × {row['name']}" for row in hired if row["fits"]][:3]


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{math.ceil(size / (1 << 20))} MiB"


def preflight(job: TrainingJob) -> dict[str, Any]:
    """Size a job that is about to start, and keep what is predicted beside what will be measured.

    Raises:
        CannotFit: it would not fit; the message says what would.
    """
    prices = read_prices()
    sizing = size(job, "doubt")
    found = estimate_of(sizing, prices)
    write_json(predicted_path(job.stage), found)
    if not found["fits"]:
        raise CannotFit(refusal(found))
    took, memory = found["time"], found["memory"]
    print(
        f"{job.stage}: {found['work']['steps']} steps, about {clock(took['seconds'])} ({took['source']}), "
        f"{gib(memory['needed'])} of {gib(memory['available'])} memory",
        flush=True,
    )
    return found


def predicted_path(stage: str) -> Path:
    """Where the prediction of a stage's last run lies."""
    return layout.MEASURED / f"{stage}.predicted.json"


def refusal(found: dict[str, Any]) -> str:
    """Why, and what would fit."""
    instead = "; ".join(found["would_fit"]) or "no change that is known here"
    return f"{found['stage']} cannot run here: {'; '.join(found['reasons'])}. What would fit: {instead}"


def clock(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def totals(stages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Time, energy and cost of all stages, one after the other."""
    return {
        "seconds": round(sum(row["time"]["seconds"] for row in stages), 1),
        "energy_kwh": round(sum(row["energy_kwh"] for row in stages), 5),
        "cost": round(sum(row["cost"] for row in stages), 4),
    }
