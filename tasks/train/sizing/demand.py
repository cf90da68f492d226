"""What a training asks of each process: bytes by component, and floating-point operations by step.

Formulas only; tasks/train/sizing/probe.py corrects them by three real steps. Sources: the ZeRO paper (Rajbhandari et
al. 2020, arXiv 1910.02054, section 3) for weights, gradients and optimiser; Korthikanti et al. 2022 (arXiv 2205.05198,
section 4) for the way activations are counted, redone for gated layers with root-mean-square norms; Kaplan et al.
2020 (arXiv 2001.08361, table 1) for operations a token.
Limits: no activation checkpointing (no stage uses it), Adam in fp32.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from tasks.core.settings import Section
from tasks.core.training_params import Method
from tasks.train.sizing.shapes import VIRTUAL, WHOLE, ModelShape, trained_parameters

BYTES = {"fp32": 4, "bf16": 2}
GIB = 1 << 30
# Of a worker without a model: interpreter, torch, transformers, trl, DeepSpeed. Measured on CPU; CUDA adds a context.
RUNTIME_CPU, RUNTIME_GPU = 900 << 20, 1200 << 20
ADAM = 8  # bytes: two moments in fp32
NOTES = 8 << 20  # bytes of a checkpoint beside its weights: tokenizer, states of random numbers and schedules
LOGIT_COPIES = 5  # of the logits at once: as computed, chosen, their log-softmax, and the gradients of two of these


@dataclass(frozen=True)
class Partition:
    """How the state is shared among processes: DeepSpeed's ZeRO stage and what is kept in main memory instead."""

    stage: int
    processes: int
    offload_optimiser: bool = False
    offload_weights: bool = False


@dataclass(frozen=True)
class Batch:
    """One forward pass of a process: sequences, tokens of each with padding, and columns whose loss is computed.

    Packed rows have no padding but in attention: `filled` is then the number of tokens of all of them.
    """

    rows: int
    tokens: int
    scored: int
    filled: int = 0

    @property
    def positions(self) -> int:
        """Tokens of all rows, with what padding there is."""
        return self.filled or self.rows * self.tokens


@dataclass(frozen=True)
class Companions:
    """What a process of an online training holds beside the policy.

    Models have the base model's weights; copies are of what is trained, and whole in each process.
    """

    whole: int = 0  # models that are whole in each process: the reward model
    shared: int = 0  # models that ZeRO-3 shares out: TRL's reference where every weight is trained
    copies: int = 0  # while it learns, such as the reference and the last good policy
    lent: int = 0  # more of them while it answers
    saved: int = 0  # those that lie in each checkpoint
    answers: int = 0  # written at once


@dataclass(frozen=True)
class Training:
    """What is trained, how: all that the formulas depend on beside the batch."""

    shape: ModelShape
    method: Method
    section: Section
    precision: Literal["fp32", "bf16"]
    partition: Partition
    on_cpu: bool
    beside: Companions = Companions()

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        return trained_parameters(self.shape, self.method, self.section)


@dataclass(frozen=True)
class Memory:
    """Bytes of one process by component; `host` is what ZeRO's offload moves to main memory.

    `companions` are other models and copies of the policy; `activations` those of learning, or, of an online method,
    what answering takes where that is more.
    """

    weights: int
    gradients: int
    optimiser: int
    activations: int
    logits: int
    runtime: int
    host: int = 0
    companions: int = 0

    @property
    def total(self) -> int:
        """Bytes on the device that trains (on CPU that is main memory, and `host` lies there too)."""
        state = self.weights + self.companions + self.gradients + self.optimiser
        return state + self.activations + self.logits + self.runtime

    def as_dict(self) -> dict[str, int]:
        """Every component, and the total."""
        return {**asdict(self), "total": self.total}


def memory_of(training: Training, batch: Batch) -> Memory:
    """The peak of one process with its largest batch."""
    part, width = training.partition, BYTES[training.precision]
    trained = training.trained
    whole = part.processes if part.stage >= 3 else 1
    weights = _weight_bytes(training) // whole
    gradients = trained * width // (part.processes if part.stage >= 2 else 1)
    # DeepSpeed holds an fp32 copy of what is trained beside the model's own, in fp32 too, and Adam's moments.
    optimiser = trained * (4 + ADAM) // (part.processes if part.stage >= 1 else 1)
    host = (optimiser if part.offload_optimiser else 0) + (weights if part.offload_weights else 0)
    logits = _logits(training, batch)
    return Memory(
        weights=0 if part.offload_weights and not training.on_cpu else weights,
        gradients=gradients,
        optimiser=0 if part.offload_optimiser and not training.on_cpu else optimiser,
        activations=max(_activations(training, batch), _answering(training, batch) - logits),
        logits=logits,
        runtime=RUNTIME_CPU if training.on_cpu else RUNTIME_GPU,
        host=0 if training.on_cpu else host,
        companions=_companions(training, whole),
    )


def _weight_bytes(training: Training) -> int:
    """The model itself, and the adapter beside it where there is one."""
    shape, width = training.shape, BYTES[training.precision]
    if training.method == "qlora":
        return shape.linear * 9 // 16 + shape.embedding * width + training.trained * 4
    own = 0 if training.method == "full" else _copy_bytes(training)
    return shape.parameters * width + own


def _copy_bytes(training: Training) -> int:
    """What is trained, once. peft keeps adapters in fp32 over a bf16 model."""
    return training.trained * (BYTES[training.precision] if training.method == "full" else 4)


def _companions(training: Training, whole: int) -> int:
    """Other models, and the copies that are there while it learns."""
    beside, model = training.beside, training.shape.parameters * BYTES[training.precision]
    return model * beside.whole + model * beside.shared // whole + _copy_bytes(training) * beside.copies


def _answering(training: Training, batch: Batch) -> int:
    """What writing and judging answers takes instead of activations: keys and values of all of them, and copies."""
    shape, beside = training.shape, training.beside
    position = 2 * shape.layers * shape.key_value_heads * shape.head_width * BYTES[training.precision]
    return beside.answers * batch.tokens * position + _copy_bytes(training) * beside.lent


def _activations(training: Training, batch: Batch) -> int:
    """What the forward pass keeps for the backward pass, over all layers.

    A layer keeps, in units of the hidden width: both norms' inputs (in fp32) and results, rotated queries, keys and
    values repeated for every head, and the attention's result; and four vectors of the inner width (gate, its
    activation, the other half, their product). The product and the norms' results are not kept where the weights are
    frozen and no adapter reads them. Plain attention keeps its probabilities: in fp32, and in bf16 once more.
    """
    shape, width = training.shape, BYTES[training.precision]
    frozen = training.method in VIRTUAL
    attended = shape.heads * shape.head_width
    position = shape.hidden * (2 * 4 + (0 if frozen else 2 * width))
    position += 4 * attended * width + (3 if frozen else 4) * shape.inner * width
    # The fused attention of GPUs and of packed rows keeps no probabilities.
    plain = training.on_cpu and not batch.filled
    attention = shape.heads * batch.tokens**2 * batch.rows * (4 if training.precision == "fp32" else 6) if plain else 0
    kept = (batch.positions * position + attention) * shape.layers
    return kept + (_rebuilt(training) if training.method in ("dora", "osf") else 0)


def _rebuilt(training: Training) -> int:
    """Weights that DoRA and OSF put together anew in every forward pass and keep for the backward pass."""
    settings: Any = training.section
    places = training.shape.of(settings.target_modules)
    return sum(rows * columns for rows, columns in places) * BYTES[training.precision]


def _logits(training: Training, batch: Batch) -> int:
    return batch.rows * batch.scored * training.shape.vocabulary * 4 * LOGIT_COPIES


def operations(training: Training, batch: Batch) -> float:
    """Floating-point operations of one forward and backward pass of a process.

    Two for each weight and token forward, as many for the gradient of what goes in, and as many again for the
    gradient of weights that are trained.
    """
    linear, attention, adapters = _forward(training, batch)
    return linear * (3.0 if training.method in WHOLE else 2.0) + (attention + adapters) * 3.0


def forward_operations(training: Training, batch: Batch) -> float:
    """Floating-point operations of a pass that only looks: two for each weight and token."""
    return sum(_forward(training, batch))


def _forward(training: Training, batch: Batch) -> tuple[float, float, float]:
    """Operations of a forward pass: of weights and head, of attention, of what an adapter adds."""
    shape = training.shape
    weights = shape.linear * batch.positions + shape.vocabulary * shape.hidden * batch.rows * batch.scored
    attention = 4.0 * shape.heads * shape.head_width * batch.tokens**2 * batch.rows * shape.layers
    added = training.method not in (*WHOLE, *VIRTUAL)
    return 2.0 * weights, attention, 2.0 * training.trained * batch.positions if added else 0.0


def checkpoint_bytes(training: Training) -> int:
    """Size of one checkpoint on disk.

    What is trained as weights, the same once more as DeepSpeed keeps it, its optimiser's state with an fp32 copy, and
    tokenizer and notes. A head that is tied to the embedding is written too: beside an adapter DeepSpeed leaves all
    other frozen weights out, and beside a full tune it no longer looks tied.
    """
    shape, width = training.shape, BYTES[training.precision]
    head = shape.embedding * width if shape.tied else 0
    copies = training.trained * width * training.beside.saved
    return 2 * final_bytes(training) + head + training.trained * (4 + ADAM) + copies + NOTES


def final_bytes(training: Training) -> int:
    """Size of the weights that a training leaves."""
    count = training.shape.parameters if training.method == "full" else training.trained
    return count * BYTES[training.precision]
