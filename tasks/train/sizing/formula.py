"""What a training asks of each process: bytes by component, and floating-point operations.

Formulas only; tasks/train/sizing/probe.py corrects them by a few real steps. Sources: the ZeRO paper (Rajbhandari et
al. 2020, arXiv 1910.02054, section 3) for weights, gradients and optimiser; Korthikanti et al. 2022 (arXiv 2205.05198,
section 4) for the way activations are counted, redone for gated layers with root-mean-square norms; Kaplan et al.
2020 (arXiv 2001.08361, table 1) for operations a token.
Limits: no activation checkpointing (no stage uses it), Adam in fp32.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tasks.core.settings import Section
from tasks.core.training_params import (
    DoraParams,
    FullParams,
    OsfParams,
    PromptTuningParams,
    PTuningParams,
    PTuningV2Params,
    QloraParams,
)
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.shapes import ModelShape, read_shape, trained_parameters
from tasks.train.sizing.workload import Batch, is_online

BYTES = {"fp32": 4, "bf16": 2}
# Of a worker without a model: interpreter, torch, transformers, trl, DeepSpeed. Measured on CPU; CUDA adds a context.
RUNTIME_CPU, RUNTIME_GPU = 900 << 20, 1200 << 20
OPTIMISER = 12  # bytes a trained number: DeepSpeed's own copy in fp32, and Adam's two moments
# Beside the policy of an online training: the reward model, and copies of what is trained (a reference, the last good
# policy, those that are judged, TRL's own), all whole in each process; and those of them that checkpoints hold.
COPIES, SAVED_COPIES = 5, 2
LOGIT_COPIES = 5  # of the logits at once: as computed, chosen, their log-softmax, and the gradients of two of these
NOTES = 8 << 20  # bytes of a checkpoint beside its weights: tokenizer, states of random numbers and schedules
VirtualParams = PTuningV2Params | PTuningParams | PromptTuningParams


@dataclass(frozen=True)
class Training:
    """What is trained, how: all that the formulas depend on beside the batch."""

    shape: ModelShape
    section: Section  # the method's settings
    precision: Literal["fp32", "bf16"]
    on_cpu: bool
    processes: int
    zero: int  # DeepSpeed's ZeRO stage: what of the state is shared out among the processes
    offload_optimiser: bool = False  # to main memory
    offload_weights: bool = False
    answers: int = 0  # that each process of an online training writes at once

    @cached_property
    def trained(self) -> int:
        """Numbers that are trained."""
        return trained_parameters(self.shape, self.section)

    @property
    def full(self) -> bool:
        """Whether every weight is trained."""
        return isinstance(self.section, FullParams)

    @property
    def width(self) -> int:
        """Bytes of a number."""
        return BYTES[self.precision]


def training_of(job: TrainingJob, launch: dict[str, Any]) -> Training:
    """The job as the formulas see it."""
    path = (launch.get("deepspeed_config") or {}).get("deepspeed_config_file")
    zero = json.loads(Path(path).read_text(encoding="utf-8")).get("zero_optimization", {}) if path else {}
    offloaded = [(zero.get(f"offload_{part}") or {}).get("device", "none") != "none" for part in ("optimizer", "param")]
    rollout = getattr(job.settings, "rollout", None)
    return Training(
        read_shape(job.base_model),
        job.method_section(),
        "bf16" if job.settings.precision == "bf16" else "fp32",
        bool(launch.get("use_cpu")),
        int(launch["num_processes"]),
        int(zero.get("stage", 0)),
        offload_optimiser=offloaded[0],
        offload_weights=offloaded[1],
        answers=rollout.prompts * rollout.answers // job.processes if rollout and is_online(job) else 0,
    )


def memory_of(training: Training, batch: Batch) -> dict[str, int]:
    """Bytes of one process at its peak, with its largest batch, by component.

    `host` is what ZeRO's offload moves to the main memory of a GPU's machine; it is not on the device. `activations`
    are those of learning, or what answering takes where that is more.
    """
    shape, width = training.shape, training.width
    sharing = [training.processes if training.zero >= stage else 1 for stage in (1, 2, 3)]
    copy = training.trained * (width if training.full else 4)  # peft keeps adapters in fp32 over a bf16 model
    model = shape.parameters * width
    four_bits = isinstance(training.section, QloraParams)
    held = shape.linear * 9 // 16 + shape.embedding * width if four_bits else model
    weights = (held + (0 if training.full else copy)) // sharing[2]
    optimiser = training.trained * OPTIMISER // sharing[0]
    no_optimiser, no_weights = (
        offloaded and not training.on_cpu for offloaded in (training.offload_optimiser, training.offload_weights)
    )
    logits = batch.rows * batch.scored * shape.vocabulary * 4 * LOGIT_COPIES
    keys_and_values = 2 * shape.layers * shape.key_value_heads * shape.head_width * width * batch.tokens
    return {
        "weights": 0 if no_weights else weights,
        "gradients": training.trained * width // sharing[1],
        "optimiser": 0 if no_optimiser else optimiser,
        "activations": max(_activations(training, batch), training.answers * keys_and_values - logits),
        "logits": logits,
        "runtime": RUNTIME_CPU if training.on_cpu else RUNTIME_GPU,
        "host": no_optimiser * optimiser + no_weights * weights,
        "companions": model + COPIES * copy if training.answers else 0,
    }


def _activations(training: Training, batch: Batch) -> int:
    """What the forward pass keeps for the backward pass, over all layers.

    A layer keeps, in units of the hidden width: both norms' inputs (in fp32) and results, rotated queries, keys and
    values repeated for every head, and the attention's result; and four vectors of the inner width (gate, its
    activation, the other half, their product). The product and the norms' results are not kept where the weights are
    frozen and no adapter reads them. Plain attention keeps its probabilities: in fp32, and in bf16 once more. DoRA and
    OSF put weights together anew in every forward pass, and keep those.
    """
    shape, width, section = training.shape, training.width, training.section
    frozen = isinstance(section, VirtualParams)
    position = shape.hidden * (2 * 4 + (0 if frozen else 2 * width))
    position += 4 * shape.heads * shape.head_width * width + (3 if frozen else 4) * shape.inner * width
    # The fused attention of GPUs and of packed rows keeps no probabilities.
    plain = training.on_cpu and not batch.filled
    attention = shape.heads * batch.tokens**2 * batch.rows * (4 if training.precision == "fp32" else 6) if plain else 0
    rebuilt = shape.of(section.target_modules) if isinstance(section, DoraParams | OsfParams) else []
    return (batch.positions * position + attention) * shape.layers + sum(n * m for n, m in rebuilt) * width


def operations(training: Training, batch: Batch, backward: bool = True) -> float:
    """Floating-point operations of one pass of a process.

    Two for each weight and token forward, as many for the gradient of what goes in, and as many again for the
    gradient of weights that are trained.
    """
    shape, section = training.shape, training.section
    weights = shape.linear * batch.positions + shape.vocabulary * shape.hidden * batch.rows * batch.scored
    attention = 4.0 * shape.heads * shape.head_width * batch.tokens**2 * batch.rows * shape.layers
    apart = isinstance(section, FullParams | OsfParams | VirtualParams)
    adapter = 0.0 if apart else 2.0 * training.trained * batch.positions
    if not backward:
        return 2.0 * weights + attention + adapter
    return 2.0 * weights * (3 if isinstance(section, FullParams | OsfParams) else 2) + (attention + adapter) * 3.0


def checkpoint_bytes(training: Training) -> int:
    """Size of one checkpoint on disk.

    What is trained as weights, the same once more as DeepSpeed keeps it, its optimiser's state with an fp32 copy, and
    tokenizer and notes. A head that is tied to the embedding is written too: beside an adapter DeepSpeed leaves all
    other frozen weights out, and beside a full tune it no longer looks tied.
    """
    head = training.shape.embedding * training.width if training.shape.tied else 0
    copies = SAVED_COPIES * training.trained * training.width if training.answers else 0
    return 2 * result_bytes(training) + head + training.trained * OPTIMISER + copies + NOTES


def result_bytes(training: Training) -> int:
    """Size of the weights that a training leaves."""
    return (training.shape.parameters if training.full else training.trained) * training.width
