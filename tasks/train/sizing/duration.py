"""How long a training takes: starting, steps, validation, checkpoints.

Operations over a rate. A probe measures the rates of this job on this machine; without one the last probe's serves, or
what infra/prices.yaml says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.train.sizing.demand import Training, checkpoint_bytes, forward_operations, operations
from tasks.train.sizing.machines import Prices
from tasks.train.sizing.probe import learnt_rate
from tasks.train.sizing.workload import Workload, is_online

if TYPE_CHECKING:
    from tasks.train.sizing.sized import Sizing

PROBE_SPREAD, FORMULA_SPREAD = 1.25, 3.0  # factors within which the time is expected
FORMULA_STARTUP = 25.0  # seconds until the first step: imports and loading
DISK_RATE = 3e8  # bytes a second that a checkpoint is written with


def time_of(sizing: Sizing, prices: Prices) -> dict[str, Any]:
    """Seconds by part, and the range they are expected in."""
    training, work, probe = sizing.training, sizing.work, sizing.probe
    rate = probe.rate if probe else _rate(sizing, prices)
    floor = 0.0 if training.on_cpu else layers_floor(training, prices)
    saving = probe.saving if probe else checkpoint_bytes(training) / DISK_RATE
    parts = {
        "startup": probe.startup if probe else FORMULA_STARTUP,
        "training": learning_seconds(training, work, rate, floor),
        "validation": looking_seconds(training, work, probe.check_rate if probe else rate, floor),
        "saving": saves_of(sizing) * saving,
    }
    seconds, spread = sum(parts.values()), PROBE_SPREAD if probe else FORMULA_SPREAD
    rounded = {name: round(value, 1) for name, value in parts.items()}
    return {
        "seconds": round(seconds, 1),
        "low": seconds / spread,
        "high": seconds * spread,
        **rounded,
        "source": "probe" if probe else "formula",
    }


def learning_seconds(training: Training, work: Workload, rate: float, floor: float) -> float:
    """All steps of one process, at `rate` operations a second but no pass in less than `floor` seconds."""
    return sum(max(operations(training, batch) / rate, floor) for step in work.steps for batch in step)


def looking_seconds(training: Training, work: Workload, rate: float, floor: float) -> float:
    """All passes of one process that only look: validations, a reference, held-out answers."""
    once = [max(forward_operations(training, batch) / rate, floor / 3) for batch in work.checks]
    outside = [max(forward_operations(training, batch) / rate, floor / 3) for batch in work.outside]
    return sum(once) * work.validations + sum(outside)


def layers_floor(training: Training, prices: Prices) -> float:
    """Seconds that a learning pass takes on a GPU, however little there is to compute."""
    return prices.gpu_layer_milliseconds / 1000 * training.shape.layers


def saves_of(sizing: Sizing) -> int:
    """Checkpoints that are written; the online methods take them between two updates only."""
    every, steps = sizing.job.settings.save_every, len(sizing.work.steps)
    if is_online(sizing.job):
        from tasks.train.run.online_plan import plan_online

        settings: Any = sizing.job.settings
        every = plan_online(settings, sizing.job.processes, sizing.work.examples).save_every(every)
    return steps // every + 1


def _rate(sizing: Sizing, prices: Prices) -> float:
    """Operations a second of one process, before any probe of this job."""
    if not sizing.training.on_cpu:
        return min(gpu.bf16_tflops for gpu in prices.gpus) * 1e12 * prices.gpu_utilisation
    known = learnt_rate(sizing.training.precision)
    return known or getattr(prices.this_machine.gflops_per_process, sizing.training.precision) * 1e9
