"""How much there is to compute in a training: its steps, each as the batches that a process works through.

Lengths are those that training encodes; the tokenizer's files are read without transformers, because sizing answers at
once and runs inside the stage. The steps of supervised fine-tuning are planned as training plans them, so padding and
the longest batch are known exactly; those of other stages are taken as random batches. What the online methods answer
is counted from their settings, at the longest.
Limits: KTO's second pass, for its KL term, is in the time only after a probe.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.records import Example, Message, Preference, read_own_jsonl
from tasks.text.prompts import PromptBook, PromptError, encode_example, encode_preference, render_prompt
from tasks.train.run.job import TrainingJob
from tasks.train.tuning.batches import HELD_OUT, plan_epoch

Step = tuple["Batch", ...]  # the batches of one process; with gradient accumulation there are several
LEARNT = ("train", "prompts", "documents")  # names under which jobs keep what they learn from
VALIDATION = ("validation", "held_out")
REPLAYED = "general"  # the origin of examples against forgetting, which the online methods leave out
ANSWERING = 2  # learning passes that cost as much as to write answers, and to judge them by three models
JUDGING = 4  # the same in forward passes: the writing counts as one
HELD_OUT_ANSWERS = 4  # to each held-out prompt, before and after: tasks/train/align/online/judging.py


@dataclass(frozen=True)
class RowSize:
    """One example, or one prompt with all that is preferred over something else as an answer to it.

    Tokens of the prompt and of each answer; of each pair, those of the chosen and of the rejected answer; and the
    lines of the file, counted without the empty ones, that say so.
    """

    prompt: int
    answers: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    lines: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return self.prompt + max(self.answers)


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
class Workload:
    """What one process computes.

    `steps` of all epochs; `forward` what passes the model forward only: validations, each of the first `validated`
    batches, then a reference, held-out answers; `saves` checkpoints; `update` steps of one update of an online method,
    otherwise 0; `tokens` without padding, of all processes.
    """

    steps: tuple[Step, ...]
    forward: tuple[Batch, ...]
    examples: int
    tokens: int
    saves: int
    validated: int = 0
    update: int = 0

    @property
    def largest(self) -> Batch:
        """The batch that needs most memory."""
        batches = [batch for step in self.steps for batch in step]
        return max(batches, key=lambda batch: (batch.positions, batch.scored * batch.rows))


class _Tokenizer(PromptBook):
    """Encodes as training's own tokenizer does; a test compares the two."""

    eos_token_id = 0  # only its being there counts

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": self.ids(text)}


def is_online(job: TrainingJob) -> bool:
    """Whether the policy answers while it trains."""
    return bool(getattr(job.settings, "online", False))


def learnt_from(job: TrainingJob) -> str:
    """The name, in `job.data`, of the file that is learnt from."""
    return next(name for name in LEARNT if name in job.data)


def read_rows(job: TrainingJob) -> tuple[list[RowSize], list[RowSize]]:
    """Lengths of what is learnt from, and of what is validated on: examples, or prompts with their preferences.

    Raises:
        PromptError: an example is longer than the settings allow; training would refuse it too.
    """
    tokenizer = _Tokenizer(job.base_model)
    learnt = job.data[learnt_from(job)]
    if job.stage == "pretrain":
        return _pretraining(job, tokenizer, learnt)
    held = next((job.data[name] for name in VALIDATION if name in job.data), None)
    read = _prompts if is_online(job) else _examples if job.stage == "sft" else _preferences
    return read(job, tokenizer, learnt), read(job, tokenizer, held) if held and held.is_file() else []


def _examples(job: TrainingJob, tokenizer: Any, path: Path) -> list[RowSize]:
    rows = []
    for line, example in enumerate(read_own_jsonl(path, Example)):
        prompt, answer = encode_example(tokenizer, job.system, example, job.settings.max_tokens)
        rows.append(RowSize(len(prompt), (len(answer),), lines=(line,)))
    return rows


def _preferences(job: TrainingJob, tokenizer: Any, path: Path) -> list[RowSize]:
    """By prompt, each answer once, as in tasks/train/preference/rows.py; what that lays aside is left out."""
    groups: dict[tuple[Message, ...], tuple[int, dict[str, int], list[tuple[int, int]], list[int]]] = {}
    for line, preference in enumerate(read_own_jsonl(path, Preference)):
        try:
            prompt, chosen, rejected = encode_preference(tokenizer, job.system, preference, job.settings.max_tokens)
        except PromptError:
            continue
        _, answers, pairs, lines = groups.setdefault(preference.prompt, (len(prompt), {}, [], []))
        answers |= {preference.chosen: len(chosen), preference.rejected: len(rejected)}
        pairs.append((len(chosen), len(rejected)))
        lines.append(line)
    return [
        RowSize(prompt, tuple(answers.values()), tuple(pairs), tuple(lines))
        for prompt, answers, pairs, lines in groups.values()
    ]


def _prompts(job: TrainingJob, tokenizer: Any, path: Path) -> list[RowSize]:
    """The domain's prompts, each once, as tasks/train/align/online/policy.py takes them."""
    settings: Any = job.settings
    kept: dict[str, int] = {}
    for line, example in enumerate(read_own_jsonl(path, Example)):
        if example.origin != REPLAYED:
            system = example.system or job.system
            kept.setdefault(render_prompt(tokenizer, system, example.prompt, example.history), line)
    rows = [RowSize(tokenizer.count(text), (0,), lines=(line,)) for text, line in kept.items()]
    return [row for row in rows if row.prompt <= settings.rollout.max_prompt_tokens]


def _pretraining(job: TrainingJob, tokenizer: Any, path: Path) -> tuple[list[RowSize], list[RowSize]]:
    """Full rows of the domain's text and the general text that goes with it; one in HELD_OUT is only validated on."""
    import pyarrow.parquet as pq

    settings: Any = job.settings
    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    tokens = sum(tokenizer.count(text) + 1 for text in texts)  # one ends each document
    count = max(job.processes, round(tokens * (1.0 + settings.general_ratio) / settings.max_tokens))
    held = count // HELD_OUT
    row = RowSize(0, (settings.max_tokens,))
    return [row] * (count - held), [row] * held


def items(job: TrainingJob, rows: Sequence[RowSize]) -> list[RowSize]:
    """What a batch counts: a prompt with all its answers (reward), a pair (dpo), an answer (kto); else the row."""
    alignment = getattr(job.settings, "alignment", "none")
    if alignment == "dpo":
        return [RowSize(row.prompt, pair) for row in rows for pair in row.pairs]
    if alignment == "kto":
        return [RowSize(row.prompt, (answer,)) for row in rows for answer in row.answers]
    return list(rows)


def workload_of(job: TrainingJob, rows: Sequence[RowSize], held: Sequence[RowSize]) -> Workload:
    """All that a job computes for what `read_rows` found.

    Raises:
        BatchError: fewer examples than processes.
        OnlineError: the settings of an online training do not fit each other or the number of prompts.
    """
    if is_online(job):
        return _online(job, rows, held)
    epochs = job.settings.epochs
    learnt = items(job, rows)
    steps = tuple(step for epoch in range(epochs) for step in _epoch(job, learnt, epoch))
    once = [_batch(job, [row]) for row in items(job, held)[:: job.processes]]
    forward = once * (1 + epochs)
    if job.stage == "reward":
        forward += once  # the margins of the result are taken once more
    elif job.stage == "align":
        # The reference scores each answer by itself, before the first step.
        alone = [row.prompt + answer for row in [*rows, *held] for answer in row.answers]
        forward += [Batch(1, tokens, tokens) for tokens in alone[:: job.processes]]
    return Workload(
        steps=steps,
        forward=tuple(forward),
        examples=len(learnt),
        tokens=sum(row.prompt + answer for row in learnt for answer in row.answers) * epochs,
        saves=len(steps) // job.settings.save_every + 1,
        validated=len(once),
    )


def _epoch(job: TrainingJob, rows: Sequence[RowSize], epoch: int) -> list[Step]:
    """The steps of an epoch, each as the batches of its slowest process, which decides how long it takes."""
    size, count = job.settings.batch_size, job.processes
    if job.stage == "sft":
        plan = plan_epoch([row.longest for row in rows], size, count, job.seed, epoch)
        hands = [[[rows[i] for i in hand] for hand in step] for step in plan]
    else:
        order = random.Random(f"{job.seed} {epoch}").sample(rows, len(rows))
        steps = [order[i : i + size * count] for i in range(0, len(order), size * count)]
        hands = [[step[i::count] for i in range(min(count, len(step)))] for step in steps]
    batches = [max((_batch(job, hand) for hand in step), key=lambda batch: batch.positions) for step in hands]
    every = job.settings.gradient_accumulation
    return [tuple(batches[i : i + every]) for i in range(0, len(batches), every)]


def _batch(job: TrainingJob, rows: Sequence[RowSize]) -> Batch:
    """Sequences padded to the longest; the head is asked for the columns in which one of them has an answer.

    Packed, they lie end to end, and the head is asked for the answers only. A reward model has no words to score.
    """
    tokens, count = max(row.longest for row in rows), sum(len(row.answers) for row in rows)
    if getattr(job.settings, "packing", False):
        scored = -(-sum(sum(row.answers) for row in rows) // count)
        return Batch(count, tokens, scored, filled=sum(row.longest for row in rows))
    return Batch(count, tokens, 0 if job.stage == "reward" else tokens - min(row.prompt for row in rows))


def _online(job: TrainingJob, rows: Sequence[RowSize], held: Sequence[RowSize]) -> Workload:
    """Updates of a few steps each, as run/online_plan.py makes them; the first of an update has the answers.

    The held-out prompts are answered twice at the end, as the SFT policy and as the trained one.
    """
    from tasks.train.run.online_plan import plan_online

    settings: Any = job.settings
    rollout, plan = settings.rollout, plan_online(settings, job.processes, len(rows))
    prompt = max((row.prompt for row in rows), default=rollout.max_prompt_tokens)
    batch = Batch(plan.micro, prompt + rollout.max_answer_tokens, rollout.max_answer_tokens)
    learning: Step = (batch,) * plan.accumulation
    first: Step = learning + (batch,) * (ANSWERING * -(-plan.answers // plan.micro))
    steps = (first, *(learning,) * (plan.steps_per_update - 1)) * plan.updates
    answers = 2 * HELD_OUT_ANSWERS * -(-len(held) // job.processes) if len(held) > 1 else 0
    return Workload(
        steps=steps,
        forward=(batch,) * (JUDGING * -(-answers // plan.micro)),
        examples=len(rows),
        tokens=rollout.updates * rollout.prompts * rollout.answers * batch.tokens,
        saves=len(steps) // plan.save_every(settings.save_every) + 1,
        update=plan.steps_per_update,
    )
