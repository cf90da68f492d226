"""How much there is to compute in a training: its steps, each as the batches that a process works through.

The steps of supervised fine-tuning are planned by the very functions that training uses, so padding and the longest
batch are known exactly. Preferences and answers of the online methods are counted from their settings.
Limits: what other stages pad is taken as random batches.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.train.job import TrainingJob
from tasks.train.sizing.demand import Batch
from tasks.train.sizing.lengths import Counter, Row
from tasks.train.tuning.batches import plan_epoch
from tasks.train.tuning.pretrain_rows import HELD_OUT

Step = tuple[Batch, ...]  # the batches of one process; with gradient accumulation there are several
LEARNT = ("train", "prompts", "documents", "domain")  # names under which jobs keep what they learn from
CHECKED = ("validation", "held_out")
ANSWERING = 2


@dataclass(frozen=True)
class Workload:
    """`steps` of all epochs, `checks` the validation's batches of one process, once; `tokens` without padding."""

    steps: tuple[Step, ...]
    checks: tuple[Batch, ...]
    validations: int
    examples: int
    tokens: int

    @property
    def largest(self) -> Batch:
        """The batch that needs most memory."""
        batches = [batch for step in self.steps for batch in step]
        return max(batches, key=lambda batch: (batch.positions, batch.scored * batch.rows))


def learnt_from(job: TrainingJob) -> str:
    """The name, in `job.data`, of the file that is learnt from."""
    return next((name for name in LEARNT if name in job.data), next(iter(job.data)))


def read_rows(job: TrainingJob) -> tuple[list[Row], list[Row]]:
    """Lengths of what is learnt from, and of what is only measured on."""
    counter = Counter(job.base_model, job.system)
    name = learnt_from(job)
    if job.data[name].suffix == ".parquet":
        return _pretraining(job, counter.texts(job.data[name]))
    checked = next((job.data[other] for other in CHECKED if other in job.data), None)
    return counter.rows(job.data[name]), counter.rows(checked) if checked else []


def _pretraining(job: TrainingJob, domain_tokens: int) -> tuple[list[Row], list[Row]]:
    """Full rows of the domain's text and the general text that goes with it; one in HELD_OUT is only measured on."""
    settings: Any = job.settings
    count = max(job.processes, round(domain_tokens * (1.0 + settings.general_ratio) / settings.max_tokens))
    held = count // HELD_OUT
    row = Row(0, (settings.max_tokens,))
    return [row] * (count - held), [row] * held


def workload_of(job: TrainingJob, rows: Sequence[Row], checked: Sequence[Row]) -> Workload:
    """All that a job computes.

    Raises:
        BatchError: fewer examples than processes.
    """
    settings: Any = job.settings
    if getattr(settings, "online", False):
        return _online(job, rows)
    epochs = [step for epoch in range(settings.epochs) for step in _epoch(job, rows, epoch)]
    mine = checked[:: job.processes]
    return Workload(
        steps=tuple(epochs),
        checks=tuple(_batch([row]) for row in mine),
        validations=1 + settings.epochs if checked else 0,
        examples=len(rows),
        tokens=sum(row.prompt + answer for row in rows for answer in row.answers) * settings.epochs,
    )


def _epoch(job: TrainingJob, rows: Sequence[Row], epoch: int) -> list[Step]:
    settings: Any = job.settings
    size, count = settings.batch_size, job.processes
    lengths = [row.longest for row in rows]
    packed = getattr(settings, "packing", False)
    if job.stage == "sft":
        plan = plan_epoch(lengths, size, count, job.seed, epoch)
        # The slowest process decides how long a step takes.
        micro = [max((_batch([rows[i] for i in hand], packed) for hand in step), key=_positions) for step in plan]
    else:
        order = list(rows)
        random.Random(f"{job.seed} {epoch}").shuffle(order)
        groups = [order[i : i + size * count] for i in range(0, len(order), size * count)]
        micro = [_batch(group[: -(-len(group) // count)]) for group in groups]
    every = settings.gradient_accumulation
    return [tuple(micro[i : i + every]) for i in range(0, len(micro), every)]


def _positions(batch: Batch) -> int:
    return batch.positions


def _batch(rows: Sequence[Row], packed: bool = False) -> Batch:
    """Sequences padded to the longest; the head is asked for the columns in which one of them has an answer.

    Packed, they lie end to end, and the head is asked for the answers only.
    """
    tokens, count = max(row.longest for row in rows), sum(len(row.answers) for row in rows)
    if packed:
        scored = -(-sum(sum(row.answers) for row in rows) // count)
        return Batch(count, tokens, scored, filled=sum(row.longest for row in rows))
    return Batch(count, tokens, tokens - min(row.prompt for row in rows))


def _online(job: TrainingJob, rows: Sequence[Row]) -> Workload:
    """Updates of a few steps each, as tasks/train/online/plan.py makes them; the first of an update has the answers.

    Writing them and the forward passes of reward model, reference and values come to about two learning passes.
    """
    from tasks.train.online.plan import plan_online

    settings: Any = job.settings
    rollout, plan = settings.rollout, plan_online(settings, job.processes, len(rows))
    prompt = min(rollout.max_prompt_tokens, max((row.prompt for row in rows), default=rollout.max_prompt_tokens))
    batch = Batch(plan.micro, prompt + rollout.max_answer_tokens, rollout.max_answer_tokens)
    learning: Step = (batch,) * plan.accumulation
    first: Step = learning + (batch,) * (ANSWERING * -(-plan.answers // plan.micro))
    steps = (first, *(learning,) * (plan.steps_per_update - 1)) * plan.updates
    tokens = rollout.updates * rollout.prompts * rollout.answers * (prompt + rollout.max_answer_tokens)
    return Workload(steps, (), 0, len(rows), tokens)
