"""The same training on GPUs for hire: how many hold it, how long they take, what that costs.

By formula only, from the vendors' figures in infra/prices.yaml. Limits: processes of one machine; the time of starting
it and of bringing data there is not in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.train.sizing.demand import GIB, Partition, Training, memory_of, operations
from tasks.train.sizing.machines import Gpu, Prices

if TYPE_CHECKING:
    from tasks.train.sizing.estimate import Sizing

FORMULA_STARTUP = 25.0  # seconds until the first step: imports and loading


def on_gpu(sizing: Sizing, gpu: Gpu, prices: Prices) -> dict[str, Any]:
    """The same job in bf16 on as few GPUs of one kind as hold it; several share the weights by ZeRO-3."""
    job, training, work = sizing.job, sizing.training, sizing.work
    for count in (1, 2, 4, 8, 16):
        part = Partition(stage=3 if count > 1 else 2, processes=count)
        other = Training(training.shape, training.method, training.section, "bf16", part, False, training.policies)
        needed = memory_of(other, work.largest).total
        if needed <= 0.92 * gpu.memory_gib * GIB:
            break
    rate = gpu.bf16_tflops * 1e12 * prices.gpu_utilisation
    floor = prices.gpu_layer_milliseconds / 1000 * training.shape.layers
    share = job.processes / count
    steps = sum(max(operations(other, batch) / rate, floor) * share for step in work.steps for batch in step)
    seconds = FORMULA_STARTUP + steps
    hours = seconds / 3600
    return {
        "name": gpu.name,
        "count": count,
        "fits": needed <= 0.92 * gpu.memory_gib * GIB,
        "memory_bytes": needed,
        "seconds": round(seconds, 1),
        "energy_kwh": round(gpu.power_watts * count * hours / 1000, 4),
        "cost": round(gpu.price_per_hour * count * hours, 4),
    }
