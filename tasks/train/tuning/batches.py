"""From examples to batches: what the trainer reads, and in which order.

A pure function of lengths, sizes, seed and epoch, so that a killed run goes on where it stopped. Each example comes
once an epoch; those of similar length share a step. Limits: a step's loss is a mean over its answer tokens, so tokens
in steps of short examples weigh more.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.records import Example
from tasks.text.prompts import encode_example

IGNORED = -100  # the label that torch's cross entropy leaves out
HELD_OUT = 20  # of pretraining, one row of so many is measured on, and not learnt from
POOL_STEPS = 8  # steps whose examples are sorted by length together; more would pad less and shuffle less


class BatchError(FlywheelError):
    """There are too few examples to give every process one."""


def encode_rows(tokenizer: Any, system: str, examples: Sequence[Example], max_tokens: int) -> list[dict[str, Any]]:
    """Token ids, and labels of the answer and its end. Raises PromptError: too long, or a special token in it."""
    rows = []
    for example in examples:
        prompt, answer = encode_example(tokenizer, system, example, max_tokens)
        rows.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer})
    return rows


def count_steps(examples: int, batch_size: int, processes: int) -> int:
    """Steps in an epoch, each of at most `batch_size` examples a process and at least one for each process.

    Where the two contradict each other (11 examples one by one in two processes), a process has one more. Raises
    BatchError: fewer examples than processes.
    """
    if examples < processes:
        raise BatchError(f"{examples} training examples cannot be shared among {processes} processes")
    steps = -(-examples // (batch_size * processes))
    return steps if examples // steps >= processes else steps - 1


def plan_epoch(lengths: Sequence[int], batch_size: int, processes: int, seed: int, epoch: int) -> list[list[list[int]]]:
    """An epoch as steps, each a list of example numbers for every process.

    Shuffled, cut into pools, sorted by length within each, cut into steps and dealt evenly; then the steps are
    shuffled.
    """
    rng = random.Random(f"{seed} {epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    steps = count_steps(len(lengths), batch_size, processes)
    sizes = _even_sizes(len(order), steps)
    plan = []
    for first in range(0, steps, POOL_STEPS):
        pool_sizes = sizes[first : first + POOL_STEPS]
        pool, order = order[: sum(pool_sizes)], order[sum(pool_sizes) :]
        pool.sort(key=lambda index: lengths[index], reverse=True)
        for size in pool_sizes:
            plan.append(_deal(pool[:size], processes))
            pool = pool[size:]
    rng.shuffle(plan)
    return plan


def _even_sizes(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _deal(indices: list[int], processes: int) -> list[list[int]]:
    """Deal forth and back (0 1 1 0 0 1 …), so that no process always gets the longer one."""
    hands: list[list[int]] = [[] for _ in range(processes)]
    for turn, index in enumerate(indices):
        seat = turn % (2 * processes)
        hands[seat if seat < processes else 2 * processes - 1 - seat].append(index)
    return hands


class PlannedBatches:
    """The batches of one process, a batch sampler for torch's DataLoader. Set `epoch` before each epoch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, processes: int, process: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._processes, self._process = processes, process
        self.epoch = 0

    def __len__(self) -> int:
        """Batches in an epoch; the same for every process."""
        return count_steps(len(self._lengths), self._batch_size, self._processes)

    def __iter__(self) -> Iterator[list[int]]:
        """This process's part of each step of the current epoch."""
        plan = plan_epoch(self._lengths, self._batch_size, self._processes, self._seed, self.epoch)
        return iter([step[self._process] for step in plan])
