"""Who does what, and when, in an online training: prompts and answers of updates, minibatches and processes."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tasks.core.errors import FlywheelError
from tasks.core.training_params import AlignParams


class OnlineError(FlywheelError):
    """The settings of an online training do not fit each other or the data."""


@dataclass(frozen=True)
class OnlinePlan:
    """Sizes of an online training, a step being a minibatch of one pass.

    answers: of one update and process. micro: answers of one forward pass.
    """

    updates: int
    passes: int
    minibatches: int
    answers: int
    micro: int

    @property
    def steps_per_update(self) -> int:
        """Steps of the optimiser in an update."""
        return self.passes * self.minibatches

    @property
    def steps(self) -> int:
        """Steps of the optimiser in all."""
        return self.updates * self.steps_per_update

    @property
    def accumulation(self) -> int:
        """Forward passes of a step."""
        return -(-self.answers // self.minibatches // self.micro)

    def save_every(self, asked: int) -> int:
        """Steps between checkpoints: as asked, up to the next end of an update, so that no answers need saving."""
        return -(-asked // self.steps_per_update) * self.steps_per_update

    def turns(self, seed: int, update: int, process: int) -> list[tuple[list[int], list[int]]]:
        """An update's forward passes: (its answers, all of its minibatch); in each pass every answer comes once."""
        turns = []
        size = self.answers // self.minibatches
        for number in range(self.passes):
            order = list(range(self.answers))
            random.Random(f"{seed} minibatches {update} {number} {process}").shuffle(order)
            for first in range(0, self.answers, size):
                minibatch = order[first : first + size]
                share = -(-size // self.accumulation)
                for begin in range(0, share * self.accumulation, share):
                    turns.append((minibatch[begin : begin + share], minibatch))
        return turns


def plan_online(settings: AlignParams, processes: int, prompts: int) -> OnlinePlan:
    """The sizes for so many processes and prompts. Raises OnlineError: they cannot be shared out evenly."""
    rollout = settings.rollout
    ppo = settings.alignment == "ppo"
    group = settings.rloo if settings.alignment == "rloo" else settings.grpo
    minibatches = settings.ppo.minibatches if ppo else 1
    if prompts < rollout.prompts:
        raise OnlineError(f"{prompts} prompts fit; align.rollout.prompts asks for {rollout.prompts} in an update")
    if rollout.prompts % processes:
        raise OnlineError(f"align.rollout.prompts is {rollout.prompts}; make it a multiple of {processes} processes")
    answers = rollout.prompts * rollout.answers // processes
    if answers % minibatches:
        raise OnlineError(
            f"each process has {answers} answers an update, not a multiple of align.ppo.minibatches ({minibatches})"
        )
    if settings.gradient_accumulation != 1:
        raise OnlineError("align.gradient_accumulation must be 1: here it follows from rollout and batch_size")
    size = answers // minibatches
    if size % settings.batch_size and size > settings.batch_size:
        raise OnlineError(f"a minibatch has {size} answers a process, not a multiple of align.batch_size")
    return OnlinePlan(
        updates=rollout.updates,
        passes=settings.ppo.epochs if ppo else group.iterations,
        minibatches=minibatches,
        answers=answers,
        micro=min(settings.batch_size, size),
    )
