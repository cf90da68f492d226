"""What a training will need before it starts: memory, disk, time, energy and money, here and on GPUs for hire.

Limits: without a probe, times are good within a factor of two or three; GPUs are reckoned from infra/prices.yaml.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from typing import Any, Literal

from tasks.core import layout
from tasks.core.hardware import free_memory, gpu_bytes
from tasks.core.prices import Gpu, Prices, read_prices
from tasks.core.training_params import LoraParams
from tasks.core.words import GIB, gib
from tasks.train.preference.rows import KTO_ROWS
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.formula import Sizing, disk_of, memory_of, operations, sizing_of
from tasks.train.sizing.probe import ProbeError, known_probe, known_speed, run_probe

PROBE_SPREAD, FORMULA_SPREAD = 1.25, 3.0  # factors within which the time is expected
FORMULA_STARTUP = 25.0  # seconds until the first step: imports and loading
DISK_RATE = 1e9  # bytes a second of what `disk_of` counts, with which a checkpoint is written
LONG, LARGE = 1200.0, 0.5  # seconds, or a share of the free memory, from which on a stage probes by itself
USABLE = 0.92  # of a GPU's memory; the rest is the driver's, and what the allocator cannot use
SMALL_LORA = LoraParams(rank=16, alpha=32, dropout=0.0, target_modules="all-linear")


def size(job: TrainingJob, probe: Literal["always", "doubt", "known"] = "known") -> Sizing:
    """Size a job; `probe`: where none is known, run one; only on doubt (long, or memory that may not do); or never.

    Not probed are the online methods, what cannot run here, and what runs on several machines.
    """
    found = replace(sizing_of(job), probe=known_probe(job))
    if found.probe or probe == "known" or found.machines > 1 or found.online or problems(job, found):
        return found
    doubt = found.needed > LARGE * available(found.on_cpu) or seconds_of(found, read_prices()) > LONG
    if probe == "always" or doubt:
        try:
            return replace(found, probe=run_probe(job))
        except ProbeError as error:
            logging.getLogger(__name__).warning("%s; it is sized by formula alone, which may be off by far", error)
    return found


def available(on_cpu: bool) -> int:
    """Bytes free for training: main memory of this machine, or of its fullest GPU; 0 where there is none."""
    return free_memory() if on_cpu else min(gpu_bytes("free"), default=0)


def disk_free() -> int:
    """Bytes free where checkpoints lie."""
    return shutil.disk_usage(layout.HOME if layout.HOME.is_dir() else ".").free


def problems(job: TrainingJob, sizing: Sizing) -> list[str]:
    """Why a job cannot run here, in sentences; empty where it can."""
    found, launch, ranks = [], job.settings.launch, sizing.processes // sizing.machines
    main = sizing.needed
    if not sizing.on_cpu:
        main, gpus = memory_of(sizing)["host"] * ranks, gpu_bytes("free")
        if not gpus:
            return [f"launch {launch} needs GPUs, and there is none on this machine"]
        if len(gpus) < ranks:
            found.append(f"launch {launch} needs {ranks} GPUs, and this machine has {len(gpus)}")
        if sizing.needed > min(gpus):
            found.append(f"it needs {gib(sizing.needed)} on each GPU, and {gib(min(gpus))} are free")
    if main > (free := free_memory()):
        found.append(f"it needs {gib(main)} of main memory, and {gib(free)} are free")
    if (disk := disk_of(sizing)) > (free := disk_free()):
        found.append(f"checkpoints need {gib(disk)} of disk, and {gib(free)} are free")
    return found


def seconds_of(sizing: Sizing, prices: Prices, speed: float | None = None, share: float = 1.0) -> float:
    """Seconds of a process with this share of the work of one, at `speed` operations a second.

    By default the probe's speed, else that of other probes or the table. A GPU's step takes no less than its layers
    allow.
    """
    work, probe = sizing.work, sizing.probe
    around = FORMULA_STARTUP + work.saves * disk_of(sizing) / DISK_RATE
    floor = 0.0 if sizing.on_cpu else prices.gpu_layer_milliseconds / 1000 * sizing.shape.layers
    if probe:
        speed, around = probe.speed, probe.startup + work.saves * probe.saving
    elif speed is None and sizing.on_cpu:
        listed: float = getattr(prices.this_machine.gflops_per_process, sizing.precision)
        speed = known_speed(sizing.precision) or listed * 1e9
    elif speed is None:
        speed = min(gpu.bf16_tflops for gpu in prices.gpus) * 1e12 * prices.gpu_utilisation
    learning = max(work.learnt * operations(sizing) / speed, work.steps * floor)
    return around + (learning + work.looked * operations(sizing, backward=False) / speed) * share


def estimate_of(job: TrainingJob, sizing: Sizing, prices: Prices) -> dict[str, Any]:
    """All that is said of one stage; docs/schemas/estimate.schema.json describes it. Bytes, seconds, kWh, money."""
    work, here = sizing.work, prices.this_machine
    seconds, reasons = seconds_of(sizing, prices), problems(job, sizing)
    spread = PROBE_SPREAD if sizing.probe else FORMULA_SPREAD
    energy = here.power_watts * seconds / 3.6e6
    gpus = [on_gpu(sizing, gpu, prices) for gpu in prices.gpus]
    memory, every = memory_of(sizing), sizing.shape.parameters
    share = sizing.trained / (every + (0 if sizing.method == "full" else sizing.trained))
    return {
        "stage": job.stage,
        "method": job.settings.method,
        "launch": job.settings.launch,
        "precision": sizing.precision,
        "processes": job.processes,
        "parameters": {"all": every, "trained": sizing.trained, "share": round(share, 6)},
        "work": {"examples": work.examples, "tokens": work.tokens, "steps": work.steps},
        "memory": {"per_process": memory, "needed": sizing.needed, "available": available(sizing.on_cpu)},
        "disk": {"needed": disk_of(sizing), "available": disk_free()},
        "time": {
            "seconds": round(seconds, 1),
            "low": round(seconds / spread, 1),
            "high": round(seconds * spread, 1),
            "source": "probe" if sizing.probe else "formula",
        },
        "energy_kwh": round(energy, 5),
        "cost": round(here.price_per_hour * seconds / 3600 + energy * prices.electricity_per_kwh, 4),
        "gpus": gpus,
        "fits": not reasons,
        "reasons": reasons,
        "would_fit": would_fit(job, sizing, gpus) if reasons else [],
    }


def on_gpu(sizing: Sizing, gpu: Gpu, prices: Prices) -> dict[str, Any]:
    """The same job in bf16 on as few GPUs of one kind as hold it; several share the weights by ZeRO-3."""
    own = replace(sizing, precision="bf16", on_cpu=False, machines=1, offloaded=(), probe=None)
    for count in (1, 2, 4, 8, 16):
        hired = replace(own, processes=count, zero=3 if count > 1 else 2)
        if fits := hired.needed <= USABLE * gpu.memory_gib * GIB:
            break
    speed = gpu.bf16_tflops * 1e12 * prices.gpu_utilisation
    seconds = seconds_of(hired, prices, speed, sizing.processes / count)
    hours = count * seconds / 3600
    energy, cost = round(gpu.power_watts * hours / 1000, 4), round(gpu.price_per_hour * hours, 4)
    found = {"name": gpu.name, "count": count, "fits": fits, "memory_bytes": hired.needed}
    return {**found, "seconds": round(seconds, 1), "energy_kwh": energy, "cost": cost}


def would_fit(job: TrainingJob, sizing: Sizing, gpus: list[dict[str, Any]]) -> list[str]:
    """Changes under which the job would fit here (the smallest batch, LoRA, both), then GPUs that hold it as it is."""
    settings = job.settings
    least = KTO_ROWS if getattr(settings, "alignment", "none") == "kto" else 1
    batch: dict[str, Any] = {"batch_size": least} if settings.batch_size > least else {}
    if batch and not sizing.online:  # which accumulate by themselves: a step is a minibatch of the update
        batch["gradient_accumulation"] = settings.gradient_accumulation * -(-settings.batch_size // least)
    lora = {"method": "lora"} if sizing.method in ("full", "osf", "dora") else {}
    found = []
    for change in filter(None, (batch, lora, {**lora, **batch} if batch and lora else {})):
        other = job.model_copy(update={"settings": settings.model_copy(update=change)})
        if "method" in change:
            other = other.model_copy(update={"method": SMALL_LORA.model_dump()})
        if not problems(other, replace(sizing_of(other), probe=sizing.probe)):
            found.append(" and ".join(f"{job.stage}.{name}: {value}" for name, value in change.items()))
    return found + [f"{row['count']} × {row['name']}" for row in gpus if row["fits"]][:3]
