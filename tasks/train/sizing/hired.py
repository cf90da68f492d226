"""The same training on GPUs for hire: how many hold it, how long they take, what that costs.

By formula only, from the vendors' figures in infra/prices.yaml. Limits: processes of one machine; the time of renting
it and of bringing data there is not in it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.train.sizing.demand import GIB, Partition, Training, checkpoint_bytes, memory_of
from tasks.train.sizing.duration import (
    DISK_RATE,
    FORMULA_STARTUP,
    layers_floor,
    learning_seconds,
    looking_seconds,
    saves_of,
)
from tasks.train.sizing.machines import Gpu, Prices

if TYPE_CHECKING:
    from tasks.train.sizing.sized import Sizing

COUNTS = (1, 2, 4, 8, 16)
USABLE = 0.92  # of a GPU's memory; the rest is the driver's, and what the allocator cannot use


def on_gpu(sizing: Sizing, gpu: Gpu, prices: Prices) -> dict[str, Any]:
    """The same job in bf16 on as few GPUs of one kind as hold it; several share the weights by ZeRO-3."""
    room = USABLE * gpu.memory_gib * GIB
    for count in COUNTS:
        training = _there(sizing, count)
        needed = memory_of(training, sizing.work.largest).total
        if needed <= room:
            break
    rate, floor = gpu.bf16_tflops * 1e12 * prices.gpu_utilisation, layers_floor(training, prices)
    passes = learning_seconds(training, sizing.work, rate, floor) + looking_seconds(training, sizing.work, rate, floor)
    saving = saves_of(sizing) * checkpoint_bytes(training) / DISK_RATE
    seconds = FORMULA_STARTUP + passes * sizing.job.processes / count + saving
    hours = seconds / 3600
    return {
        "name": gpu.name,
        "count": count,
        "fits": needed <= room,
        "memory_bytes": needed,
        "seconds": round(seconds, 1),
        "energy_kwh": round(gpu.power_watts * count * hours / 1000, 4),
        "cost": round(gpu.price_per_hour * count * hours, 4),
    }


def _there(sizing: Sizing, count: int) -> Training:
    beside = sizing.training.beside
    answers = -(-beside.answers * sizing.job.processes // count)
    return replace(
        sizing.training,
        precision="bf16",
        partition=Partition(stage=3 if count > 1 else 2, processes=count),
        on_cpu=False,
        beside=replace(beside, answers=answers),
    )
