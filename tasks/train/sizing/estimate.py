"""What a training will need before it starts: memory, disk, time, energy and money, here and on GPUs for hire.

From formulas (formula.py) over the real examples, corrected by a few real steps where a probe has been run (probe.py).
`preflight` refuses, before the first step, what cannot fit, and says what would.
Limits: without a probe, times are good within a factor of two or three; GPUs that are not here are reckoned from
their vendors' figures in infra/prices.yaml, as those of one machine, without the time of renting it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.formula import memory_of
from tasks.train.sizing.machines import Gpu, Prices, read_prices
from tasks.train.sizing.sizing import (
    GIB,
    Sizing,
    alternatives,
    available,
    disk_free,
    gib,
    guess,
    problems,
    seconds_by_part,
    size,
    time_of,
)

GPU_COUNTS = (1, 2, 4, 8, 16)
USABLE = 0.92  # of a GPU's memory; the rest is the driver's, and what the allocator cannot use


class CannotFit(FlywheelError):
    """The training needs more memory or disk than there is."""


def estimate_of(sizing: Sizing, prices: Prices) -> dict[str, Any]:
    """All that is said of one stage; docs/schemas/estimate.schema.json describes it. Bytes, seconds, kWh, money."""
    job, training, work, here = sizing.job, sizing.training, sizing.work, prices.this_machine
    took, reasons = time_of(sizing, prices), problems(sizing)
    energy = here.power_watts * took["seconds"] / 3.6e6
    gpus = [on_gpu(sizing, gpu, prices) for gpu in prices.gpus]
    every = training.shape.parameters
    return {
        "stage": job.stage,
        "method": job.settings.method,
        "launch": job.settings.launch,
        "precision": training.precision,
        "processes": job.processes,
        "parameters": {
            "all": every,
            "trained": training.trained,
            "share": round(training.trained / (every + (0 if training.full else training.trained)), 6),
        },
        "work": {
            "examples": work.examples,
            "tokens": work.tokens,
            "steps": len(work.steps),
            "largest_batch": {name: getattr(work.largest, name) for name in ("rows", "tokens", "scored")},
        },
        "memory": {
            "per_process": sizing.memory,
            "needed": sizing.needed,
            "available": available(training.on_cpu),
        },
        "disk": {"needed": sizing.disk, "available": disk_free()},
        "time": took,
        "energy_kwh": round(energy, 5),
        "cost": round(here.price_per_hour * took["seconds"] / 3600 + energy * prices.electricity_per_kwh, 4),
        "gpus": gpus,
        "fits": not reasons,
        "reasons": reasons,
        "would_fit": would_fit(sizing, gpus) if reasons else [],
    }


def on_gpu(sizing: Sizing, gpu: Gpu, prices: Prices) -> dict[str, Any]:
    """The same job in bf16 on as few GPUs of one kind as hold it; several share the weights by ZeRO-3."""
    for count in GPU_COUNTS:
        training = replace(
            sizing.training,
            precision="bf16",
            on_cpu=False,
            processes=count,
            zero=3 if count > 1 else 2,
            offload_optimiser=False,
            offload_weights=False,
            answers=-(-sizing.training.answers * sizing.job.processes // count),
        )
        memory = memory_of(training, sizing.work.largest)
        needed = sum(memory.values())
        if fits := needed <= USABLE * gpu.memory_gib * GIB:
            break
    rate = gpu.bf16_tflops * 1e12 * prices.gpu_utilisation
    parts = seconds_by_part(training, sizing.work, guess(training, rate), prices)
    passes = (parts["training"] + parts["validation"]) * sizing.job.processes / count
    seconds = parts["startup"] + passes + parts["saving"]
    hours = count * seconds / 3600
    return {
        "name": gpu.name,
        "count": count,
        "fits": fits,
        "memory_bytes": needed,
        "seconds": round(seconds, 1),
        "energy_kwh": round(gpu.power_watts * hours / 1000, 4),
        "cost": round(gpu.price_per_hour * hours, 4),
    }


def would_fit(sizing: Sizing, gpus: list[dict[str, Any]]) -> list[str]:
    """Changes under which the job would fit here, smallest first, then GPUs that hold it as it is."""
    here = list(islice((words for words, other in alternatives(sizing) if not problems(other)), 4))
    return here + [f"{row['count']} × {row['name']}" for row in gpus if row["fits"]][:3]


def preflight(job: TrainingJob) -> dict[str, Any]:
    """Size a job that is about to start, and keep what is predicted beside what it will really take.

    Raises:
        CannotFit: it would not fit; the message says what would.
    """
    found = estimate_of(size(job, "doubt"), read_prices())
    write_json(layout.MEASURED / f"{job.stage}.predicted.json", found)
    if not found["fits"]:
        instead = "; ".join(found["would_fit"]) or "no change that is known here"
        raise CannotFit(f"{job.stage} cannot run here: {'; '.join(found['reasons'])}. What would fit: {instead}")
    took, memory = found["time"], found["memory"]
    print(
        f"{job.stage}: {found['work']['steps']} steps, about {clock(took['seconds'])} ({took['source']}), "
        f"{gib(memory['needed'])} of {gib(memory['available'])} memory",
        flush=True,
    )
    return found


def clock(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
