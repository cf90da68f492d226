"""How much there is to compute in a training: its steps, each as the batches that a process works through.

The steps of supervised fine-tuning and of KTO are planned as training plans them, so padding and the longest batch are
known exactly; those of other stages are taken as random batches. What the online methods answer is counted from
their settings, at the longest.
Limits: KTO's second pass, for its KL term, is in the time only after a probe.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.train.run.job import TrainingJob
from tasks.train.sizing.demand import Batch
from tasks.train.sizing.lengths import Counter, Row
from tasks.train.tuning.batches import HELD_OUT, plan_epoch

Step = tuple[Batch, ...]  # the batches of one process; with gradient accumulation there are several
LEARNT = ("train", "prompts", "documents", "domain")  # names under which jobs keep what they learn from
CHECKED = ("validation", "held_out")
ANSWERING = 2  # learning passes that cost as much as to write answers, and to judge them by three models
JUDGING = 4  # the same in forward passes: the writing counts as one
HELD_OUT_ANSWERS = 4  # to each held-out prompt, before and after: tasks/train/align/online/held_out.py


@dataclass(frozen=True)
class Workload:
    """What one process computes.

    `steps` of all epochs; `checks` the validation's batches, once; `outside` what passes the model forward only,
    before the first step or after the last; `tokens` without padding, of all processes.
    """

    steps: tuple[Step, ...]
    checks: tuple[Batch, ...]
    validations: int
    examples: int
    tokens: int
    outside: tuple[Batch, ...] = ()

    @property
    def largest(self) -> Batch:
        """The batch that needs most memory."""
        batches = [batch for step in self.steps for batch in step]
        return max(batches, key=lambda batch: (batch.positions, batch.scored * batch.rows))


def is_online(job: TrainingJob) -> bool:
    """Whether the policy answers while it trains."""
    return bool(getattr(job.settings, "online", False))


def learnt_from(job: TrainingJob) -> str:
    """The name, in `job.data`, of the file that is learnt from."""
    return next((name for name in LEARNT if name in job.data), next(iter(job.data)))


def read_rows(job: TrainingJob) -> tuple[list[Row], list[Row]]:
    """Lengths of what is learnt from, and of what is only measured on: examples, or prompts with their preferences."""
    settings: Any = job.settings
    counter = Counter(job.base_model, job.system)
    learnt = job.data[learnt_from(job)]
    if learnt.suffix == ".parquet":
        return _pretraining(job, counter.texts(learnt))
    checked = next((job.data[other] for other in CHECKED if other in job.data), None)
    if is_online(job):
        longest = settings.rollout.max_prompt_tokens
        return counter.prompts(learnt, longest), counter.prompts(checked, longest) if checked else []
    return counter.rows(learnt), counter.rows(checked) if checked else []


def _pretraining(job: TrainingJob, domain_tokens: int) -> tuple[list[Row], list[Row]]:
    """Full rows of the domain's text and the general text that goes with it; one in HELD_OUT is only measured on."""
    settings: Any = job.settings
    count = max(job.processes, round(domain_tokens * (1.0 + settings.general_ratio) / settings.max_tokens))
    held = count // HELD_OUT
    row = Row(0, (settings.max_tokens,))
    return [row] * (count - held), [row] * held


def items(job: TrainingJob, rows: Sequence[Row]) -> list[Row]:
    """What a batch counts: a prompt with all its answers (reward), a pair (dpo), an answer (kto); else the row."""
    alignment = getattr(job.settings, "alignment", "none")
    if alignment == "dpo":
        return [Row(row.prompt, (row.answers[won], row.answers[lost])) for row in rows for won, lost in row.pairs]
    if alignment == "kto":
        return [Row(row.prompt, (answer,)) for row in rows for answer in row.answers]
    return list(rows)


def workload_of(job: TrainingJob, rows: Sequence[Row], checked: Sequence[Row]) -> Workload:
    """All that a job computes for what `read_rows` found.

    Raises:
        BatchError: fewer examples than processes.
        OnlineError: the settings of an online training do not fit each other or the number of prompts.
    """
    if is_online(job):
        return _online(job, rows, checked)
    settings: Any = job.settings
    learnt, held = items(job, rows), items(job, checked)
    steps = [step for epoch in range(settings.epochs) for step in _epoch(job, learnt, epoch)]
    mine = tuple(_batch(job, [row]) for row in held[:: job.processes])
    again: tuple[Batch, ...] = ()
    if job.stage == "reward":
        again = mine  # the margins of the result are taken once more
    elif job.stage == "align":
        # The reference scores each answer by itself, before the first step.
        alone = [Row(row.prompt, (answer,)) for row in [*rows, *checked] for answer in row.answers]
        again = tuple(Batch(1, row.longest, row.longest) for row in alone[:: job.processes])
    return Workload(
        steps=tuple(steps),
        checks=mine,
        validations=1 + settings.epochs if held else 0,
        examples=len(learnt),
        tokens=sum(row.prompt + answer for row in learnt for answer in row.answers) * settings.epochs,
        outside=again,
    )


def _epoch(job: TrainingJob, rows: Sequence[Row], epoch: int) -> list[Step]:
    settings: Any = job.settings
    size, count = settings.batch_size, job.processes
    if job.stage == "sft":
        plan = plan_epoch([row.longest for row in rows], size, count, job.seed, epoch)
        # The slowest process decides how long a step takes.
        micro = [max((_batch(job, [rows[i] for i in hand]) for hand in step), key=_positions) for step in plan]
    else:
        order = _shuffled(job, rows, epoch)
        groups = [order[i : i + size * count] for i in range(0, len(order), size * count)]
        micro = [_slowest(job, group, min(size, -(-len(group) // count))) for group in groups]
    every = settings.gradient_accumulation
    return [tuple(micro[i : i + every]) for i in range(0, len(micro), every)]


def _shuffled(job: TrainingJob, rows: Sequence[Row], epoch: int) -> list[Row]:
    """KTO keeps one order, that of tasks/train/preference/rows.py; torch draws the others', so any will do."""
    order = list(rows)
    kto = getattr(job.settings, "alignment", "none") == "kto"
    random.Random(job.seed if kto else f"{job.seed} {epoch}").shuffle(order)
    return order


def _slowest(job: TrainingJob, rows: Sequence[Row], size: int) -> Batch:
    """The largest of the processes' batches of a step."""
    return max((_batch(job, rows[i : i + size]) for i in range(0, len(rows), size)), key=_positions)


def _positions(batch: Batch) -> int:
    return batch.positions


def _batch(job: TrainingJob, rows: Sequence[Row]) -> Batch:
    """Sequences padded to the longest; the head is asked for the columns in which one of them has an answer.

    Packed, they lie end to end, and the head is asked for the answers only. A reward model has no words to score.
    """
    tokens, count = max(row.longest for row in rows), sum(len(row.answers) for row in rows)
    if getattr(job.settings, "packing", False):
        scored = -(-sum(sum(row.answers) for row in rows) // count)
        return Batch(count, tokens, scored, filled=sum(row.longest for row in rows))
    if job.stage == "reward":
        return Batch(count, tokens, 0)
    return Batch(count, tokens, tokens - min(row.prompt for row in rows))


def _online(job: TrainingJob, rows: Sequence[Row], checked: Sequence[Row]) -> Workload:
    """Updates of a few steps each, as run/online_plan.py makes them; the first of an update has the answers.

    The held-out prompts are answered twice at the end, as the SFT policy and as the trained one.
    """
    from tasks.train.run.online_plan import plan_online

    settings: Any = job.settings
    rollout, plan = settings.rollout, plan_online(settings, job.processes, len(rows))
    prompt = min(rollout.max_prompt_tokens, max((row.prompt for row in rows), default=rollout.max_prompt_tokens))
    batch = Batch(plan.micro, prompt + rollout.max_answer_tokens, rollout.max_answer_tokens)
    learning: Step = (batch,) * plan.accumulation
    first: Step = learning + (batch,) * (ANSWERING * -(-plan.answers // plan.micro))
    steps = (first, *(learning,) * (plan.steps_per_update - 1)) * plan.updates
    tokens = rollout.updates * rollout.prompts * rollout.answers * (prompt + rollout.max_answer_tokens)
    compared = 0
    if len(checked) > 1:
        answers = 2 * HELD_OUT_ANSWERS * -(-len(checked) // job.processes)
        compared = JUDGING * -(-answers // plan.micro)
    return Workload(steps, (), 0, len(rows), tokens, (batch,) * compared)
