"""What a training asks of each process: bytes by component, and floating-point operations.

Sources: ZeRO (arXiv 1910.02054, section 3) for weights, gradients and optimiser; arXiv 2205.05198, section 4, for
activations, redone for gated layers; arXiv 2001.08361, table 1, for operations. No activation checkpointing; Adam.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel

from tasks.core.settings import Section
from tasks.core.training_params import METHODS, Method
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import read_launch
from tasks.train.run.shape import ModelShape, read_shape, trained_parameters
from tasks.train.sizing.workload import Workload, is_online, read_rows, workload_of

BYTES = {"fp32": 4, "bf16": 2}  # of a number
# Of a worker without a model: interpreter, torch, transformers, trl, DeepSpeed. Measured on CPU; CUDA adds a context.
RUNTIME_CPU, RUNTIME_GPU = 900 << 20, 1200 << 20
# A run holds more than a probe saw: freed blocks of other sizes that the allocator keeps. Measured by bench_estimate.
GROWTH = 1.1
OPTIMISER = 12  # bytes a trained number: DeepSpeed's own copy in fp32, and Adam's two moments
COPIES = 5  # of an online policy beside itself: a reference, the last good one, those that are judged, TRL's own
LOGIT_COPIES = 5  # of the logits at once: as computed, chosen, their log-softmax, and the gradients of two of these
KEPT = 3  # checkpoints (the third is being written), and results (the workers', the stage's own, DVC's)
NOTES = 8 << 20  # bytes of a checkpoint beside its weights: tokenizer, states of random numbers and schedules


class Probe(BaseModel):
    """What a few real steps showed; see probe.py."""

    precision: str
    startup: float  # seconds before the first step, and after the last
    speed: float  # operations a second of one process
    saving: float  # seconds
    peak: int  # bytes of a process: on a GPU of the one that held most, on a processor of all on average
    explained: int  # bytes of it that the formulas expected


@dataclass(frozen=True)
class Sizing:
    """One training with all that its sizes follow from."""

    shape: ModelShape
    method: Method
    section: Section  # the method's settings
    precision: str
    on_cpu: bool
    processes: int
    zero: int  # DeepSpeed's ZeRO stage: what of the state is shared out among the processes
    work: Workload
    offloaded: tuple[str, ...] = ()  # of weights and optimiser, what lies in the main memory of a GPU's machine
    machines: int = 1
    online: bool = False
    probe: Probe | None = None

    @cached_property
    def trained(self) -> int:
        """Numbers that are trained."""
        return trained_parameters(self.shape, self.method, self.section)

    @property
    def needed(self) -> int:
        """Bytes that the processes of one machine take together: of main memory on CPU, of each GPU otherwise."""
        return memory_of(self)["total"] * (self.processes // self.machines if self.on_cpu else 1)


def sizing_of(job: TrainingJob) -> Sizing:
    """The job as the formulas see it. Raises ShapeError: the base model cannot be sized."""
    launch = read_launch(job.settings.launch)
    path = (launch.get("deepspeed_config") or {}).get("deepspeed_config_file")
    zero = json.loads(Path(path).read_text(encoding="utf-8")).get("zero_optimization", {}) if path else {}
    devices = {ours: zero.get(f"offload_{name}") for ours, name in (("optimiser", "optimizer"), ("weights", "param"))}
    return Sizing(
        shape=read_shape(job.base_model),
        method=job.settings.method,
        section=job.method_section(),
        precision=job.settings.precision if job.settings.precision in BYTES else "fp32",
        on_cpu=bool(launch.get("use_cpu")),
        processes=job.processes,
        zero=int(zero.get("stage", 0)),
        work=workload_of(job, *read_rows(job)),
        offloaded=tuple(name for name, at in devices.items() if (at or {}).get("device", "none") != "none"),
        machines=int(launch.get("num_machines", 1)),
        online=is_online(job),
    )


def memory_of(sizing: Sizing) -> dict[str, int]:
    """Bytes of one process at its peak, with its largest batch, by component.

    `host`, not in `total`, is what ZeRO's offload moves to the main memory of a GPU's machine. `activations` has the
    logits. `runtime` takes up what a probe found and the formulas do not explain.
    """
    shape, width, trained, probe = sizing.shape, BYTES[sizing.precision], sizing.trained, sizing.probe
    sharing = [sizing.processes if sizing.zero >= stage else 1 for stage in (1, 2, 3)]
    full = sizing.method == "full"
    copy = trained * (width if full else 4)  # peft keeps adapters in fp32 over a bf16 model
    model = shape.parameters * width
    held = shape.linear * 9 // 16 + shape.embedding * width if sizing.method == "qlora" else model
    found = {
        "weights": (held + (0 if full else copy)) // sharing[2],
        "gradients": trained * width // sharing[1],
        "optimiser": trained * OPTIMISER // sharing[0],
    }
    moved = () if sizing.on_cpu else sizing.offloaded
    host = sum(found[name] for name in moved)
    found |= dict.fromkeys(moved, 0)
    if sizing.online:
        found["weights"] += model + COPIES * copy
    found["activations"] = _activations(sizing)
    found["runtime"] = RUNTIME_CPU if sizing.on_cpu else RUNTIME_GPU
    if probe:
        found["runtime"] = max(0, found["runtime"] + int(probe.peak * GROWTH) - probe.explained)
    return {**found, "total": sum(found.values()), "host": host}


def _activations(sizing: Sizing) -> int:
    """What the forward pass keeps for the backward pass, over all layers, and the logits.

    A layer keeps, in units of the hidden width: both norms' inputs (in fp32) and results, rotated queries, keys and
    values of every head, and the attention's result; four vectors of the inner width (gate, activation, other half,
    product); and probabilities, in fp32 and in bf16 once more, but for the fused attention of GPUs and of packed rows.
    DoRA and OSF put weights together anew in every pass, and keep those.
    """
    shape, width, batch = sizing.shape, BYTES[sizing.precision], sizing.work.largest
    position = shape.hidden * (8 + 2 * width) + 4 * (shape.heads * shape.head_width + shape.inner) * width
    if METHODS[sizing.method].virtual:
        position -= (2 * shape.hidden + shape.inner) * width  # no adapter reads the norms' results and the product
    plain = sizing.on_cpu and not batch.filled
    attention = shape.heads * batch.tokens**2 * batch.rows * (4 if width == 4 else 6) if plain else 0
    rebuilt = shape.of(sizing.section.model_dump()["target_modules"]) if sizing.method in ("dora", "osf") else []
    logits = batch.rows * batch.scored * shape.vocabulary * 4 * LOGIT_COPIES
    return (batch.positions * position + attention) * shape.layers + sum(n * m for n, m in rebuilt) * width + logits


def operations(sizing: Sizing, backward: bool = True) -> float:
    """Floating-point operations for each token of a batch, without attention and adapters."""
    shape, batch = sizing.shape, sizing.work.largest
    head = shape.vocabulary * shape.hidden * batch.rows * batch.scored / batch.positions
    return 2.0 * (shape.linear + head) * ((3 if METHODS[sizing.method].whole else 2) if backward else 1)


def disk_of(sizing: Sizing) -> int:
    """Bytes of checkpoints while it trains (a tied head is in them, other frozen weights not), and of its result."""
    width = BYTES[sizing.precision]
    result = sizing.shape.parameters if sizing.method == "full" else sizing.trained
    head = sizing.shape.embedding if sizing.shape.tied else 0
    return KEPT * ((3 * result + head) * width + sizing.trained * OPTIMISER + NOTES)
