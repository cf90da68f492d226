"""How much there is to compute in a training: tokens, steps, and the batch that needs most memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.core.records import Example, Preference, read_own_jsonl
from tasks.text.prompts import PromptBook, PromptError, encode_example, encode_preference
from tasks.train.run.job import TrainingJob
from tasks.train.run.online_plan import plan_online
from tasks.train.tuning.batches import HELD_OUT, plan_epoch

ANSWERING = 2  # learning passes that cost as much as to write answers, and to judge them by three models


class RowSize(NamedTuple):
    """What a batch counts as one (an example, a pair, an answer, a prompt with all its answers), in tokens."""

    prompt: int
    answers: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return self.prompt + max(self.answers)


class Batch(NamedTuple):
    """A forward pass of a process: sequences, tokens of each, scored columns; packed rows have `filled` tokens."""

    rows: int
    tokens: int
    scored: int
    filled: int = 0

    @property
    def positions(self) -> int:
        """Tokens of all rows, with what padding there is."""
        return self.filled or self.rows * self.tokens


class Workload(NamedTuple):
    """What there is to compute, in all epochs."""

    steps: int
    examples: int
    tokens: int  # of all processes, without padding
    learnt: float  # tokens of one process, with padding
    looked: float  # those that pass the model forward only
    saves: int
    largest: Batch  # the batch that needs most memory


class _Tokenizer(PromptBook):
    """Encodes as training's own tokenizer does; a test compares the two."""

    eos_token_id = 0  # only its being there counts

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": self.ids(text)}


def is_online(job: TrainingJob) -> bool:
    """Whether the policy answers while it trains."""
    return bool(getattr(job.settings, "online", False))


def read_rows(job: TrainingJob) -> tuple[list[RowSize], list[RowSize]]:
    """Lengths of what is learnt from and validated on; none online. Raises PromptError: longer than settings allow."""
    tokenizer, settings = _Tokenizer(job.base_model), job.settings
    if is_online(job):
        return [], []
    if job.stage == "pretrain":
        return _pretraining(job, tokenizer, job.data["documents"])
    if job.stage == "sft":
        train, held = (
            [encode_example(tokenizer, job.system, example, settings.max_tokens) for example in examples]
            for examples in (read_own_jsonl(job.data[name], Example) for name in ("train", "validation"))
        )
        return [RowSize(len(p), (len(a),)) for p, a in train], [RowSize(len(p), (len(a),)) for p, a in held]
    return _preferences(job, tokenizer, job.data["train"]), _preferences(job, tokenizer, job.data["validation"])


def _preferences(job: TrainingJob, tokenizer: Any, path: Path) -> list[RowSize]:
    """Pairs (DPO), answers (KTO) or prompts with all their answers; what training lays aside is left out."""
    alignment = getattr(job.settings, "alignment", "none")
    rows: dict[Any, tuple[int, dict[str, int]]] = {}
    for preference in read_own_jsonl(path, Preference):
        try:
            prompt, chosen, rejected = encode_preference(tokenizer, job.system, preference, job.settings.max_tokens)
        except PromptError:
            continue
        key = preference.id if alignment == "dpo" else preference.prompt
        _, answers = rows.setdefault(key, (len(prompt), {}))
        answers |= {preference.chosen: len(chosen), preference.rejected: len(rejected)}
    if alignment == "kto":
        return [RowSize(prompt, (answer,)) for prompt, answers in rows.values() for answer in answers.values()]
    return [RowSize(prompt, tuple(answers.values())) for prompt, answers in rows.values()]


def _pretraining(job: TrainingJob, tokenizer: PromptBook, path: Path) -> tuple[list[RowSize], list[RowSize]]:
    """Full rows of the domain's text and the general text that goes with it; one in HELD_OUT is only validated on."""
    import pyarrow.parquet as pq

    settings: Any = job.settings
    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    tokens = sum(tokenizer.count(text) + 1 for text in texts)  # one ends each document
    count = max(job.processes, round(tokens * (1.0 + settings.general_ratio) / settings.max_tokens))
    row = RowSize(0, (settings.max_tokens,))
    return [row] * (count - count // HELD_OUT), [row] * (count // HELD_OUT)


def workload_of(job: TrainingJob, rows: Sequence[RowSize], held: Sequence[RowSize]) -> Workload:
    """All that a job computes. Raises BatchError: fewer examples than processes; OnlineError: settings do not fit."""
    if is_online(job):
        return _online(job)
    settings, count = job.settings, job.processes
    lengths = [row.longest if job.stage == "sft" else 0 for row in rows]  # those of other stages are not sorted
    plans = [plan_epoch(lengths, settings.batch_size, count, job.seed, epoch) for epoch in range(settings.epochs)]
    batches = [_batch(job, [rows[i] for i in hand]) for plan in plans for step in plan for hand in step]
    steps = sum(-(-len(plan) // settings.gradient_accumulation) for plan in plans)
    learnt = sum(batch.positions for batch in batches) / count
    alone = sum(len(row.answers) * row.longest for row in held) / count
    # The reference of an alignment scores each answer by itself, before the first step.
    reference = learnt / settings.epochs + alone if job.stage == "align" else 0.0
    return Workload(
        steps=steps,
        examples=len(rows),
        tokens=sum(row.prompt + answer for row in rows for answer in row.answers) * settings.epochs,
        learnt=learnt,
        looked=alone * (1 + settings.epochs) + reference,
        saves=steps // settings.save_every + 1,
        largest=max(batches, key=lambda batch: (batch.positions, batch.scored * batch.rows)),
    )


def _batch(job: TrainingJob, rows: Sequence[RowSize]) -> Batch:
    """Sequences padded to the longest, or packed end to end; a reward model has no words to score."""
    tokens, count = max(row.longest for row in rows), sum(len(row.answers) for row in rows)
    if getattr(job.settings, "packing", False):
        scored = -(-sum(sum(row.answers) for row in rows) // count)
        return Batch(count, tokens, scored, filled=sum(row.longest for row in rows))
    return Batch(count, tokens, 0 if job.stage == "reward" else tokens - min(row.prompt for row in rows))


def _online(job: TrainingJob) -> Workload:
    settings: Any = job.settings
    rollout = settings.rollout
    plan = plan_online(settings, job.processes, rollout.prompts)
    batch = Batch(plan.micro, rollout.max_prompt_tokens + rollout.max_answer_tokens, rollout.max_answer_tokens)
    passes = plan.steps * plan.accumulation + plan.updates * ANSWERING * -(-plan.answers // plan.micro)
    answers = rollout.updates * rollout.prompts * rollout.answers
    saves = plan.steps // plan.save_every(settings.save_every) + 1
    return Workload(plan.steps, answers, answers * batch.tokens, passes * batch.positions, 0, saves, batch)
