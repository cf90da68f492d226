"""Proximal policy optimisation on transformers' Trainer, which brings DeepSpeed, checkpoints, schedules and curves.

In an update the policy answers, the answers are scored, and passes are taken over them in minibatches, a step each.
Checkpoints fall between updates, and draws depend on seed and update alone, so a resumed run gives the same curve.
Sources: Schulman et al. 2017 (arXiv 1707.06347), Ziegler et al. 2019 (1909.08593), Stiennon et al. 2020 (2009.01325),
Ouyang et al. 2022 (2203.02155). Needs torch and trl. Limits: dropout is off; trained weights are kept three times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from trl.trainer.utils import disable_dropout_in_model

from tasks.train.align.online import ppo_math
from tasks.train.align.online.judging import Judging, KeepOnlineState, Reward, check
from tasks.train.align.online.policy import (
    PolicyReading,
    add_value_head,
    bare,
    load_policy,
    online_options,
    prompts_of_update,
    read,
    seed_of,
)
from tasks.train.align.stage import OnlineJob
from tasks.train.run import heartbeat
from tasks.train.run.callbacks import common_callbacks, unprinted
from tasks.train.run.held_weights import VALUE_HEAD
from tasks.train.run.online_plan import OnlinePlan, plan_online

FIGURES = ("reward", "kl", "entropy", "kl_coefficient", "answer_tokens")
LOSSES = ("policy_loss", "value_loss", "explained_variance", "clipped", "ratio")
CURVES = tuple((name, name) for name in FIGURES + LOSSES)


@dataclass(frozen=True)
class Judged:
    """What is known of each answer token, all (answers, answer columns)."""

    logps: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def pick(self, rows: Sequence[int], columns: int) -> Judged:
        """That of some answers, cut to their first columns."""
        return Judged(*(getattr(self, field.name)[list(rows), :columns] for field in fields(self)))


class PpoTrainer(Judging, Trainer):
    """Trains a policy with a value head on prompts (token ids); `given` goes to transformers' Trainer."""

    def __init__(
        self, job: OnlineJob, plan: OnlinePlan, reward: Reward, prompts: Sequence[list[int]], **given: Any
    ) -> None:
        super().__init__(**given)
        self.prompts = prompts
        self.remember(job, plan, reward)
        ppo = job.settings.ppo
        self.kl = ppo_math.AdaptiveKl(ppo.kl_coefficient, ppo.kl_target, ppo.kl_horizon)
        self.figures: dict[str, float] = {}  # of the update that is under way
        self._unlogged: dict[str, float] = {}
        self._passes: list[Tensor] = []  # of the step that is under way
        self._by_step: list[dict[str, float]] = []  # of the update that is under way
        # The loss is a mean over the whole minibatch already.
        self.loss_is_scaled_for_ga = True

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log an update's figures together with the loss of its last step."""
        figures, self._unlogged = self._unlogged, {}
        super().log({**logs, **figures}, start_time)

    def get_train_dataloader(self) -> DataLoader:
        """Numbers of forward passes; what they are about is generated when an update begins."""
        turns = list(range(self.plan.steps * self.plan.accumulation))
        return DataLoader(turns, batch_size=1, collate_fn=lambda batch: {"turn": torch.tensor(batch)})

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """A pass forward and back; before an update's first, its answers. Raises OutOfBounds: outside of the bounds."""
        turn = int(inputs["turn"])
        update, self._turn = divmod(turn, self.plan.steps_per_update * self.plan.accumulation)
        if self._turn == 0:
            self._begin(update)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if (self._turn + 1) % self.plan.accumulation == 0:
            self._end_of_step(last=self._turn + 1 == len(self._turns))
        return loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean over the answer tokens of the whole minibatch, over all processes, of both losses."""
        ppo, settings = self.job.settings.ppo, self.job.settings
        rows, minibatch = self._turns[self._turn]
        answers = self._answers.pick(rows)
        known = self._judged.pick(rows, answers.answer_mask.shape[1])
        now = read(model, self.value_head, answers, settings.rollout.temperature)
        mask = answers.answer_mask
        policy = (ppo_math.policy_losses(now.logps, known.logps, known.advantages, ppo.clip) * mask).sum()
        value = (ppo_math.value_losses(now.values, known.values, known.returns, ppo.value_clip) * mask).sum()
        self._note(now, known, mask, policy, value)
        tokens = self._total(self._answers.answer_mask[minibatch].sum())
        return (policy + ppo.value_coefficient * value) / tokens * self.args.world_size

    @torch.no_grad()
    def _begin(self, update: int) -> None:
        """Let the policy answer, judge the answers and the policy, and keep it if it is good."""
        rollout, seed = self.job.settings.rollout, self.job.seed
        rank, world = self.args.process_index, self.args.world_size
        numbers = prompts_of_update(len(self.prompts), rollout.prompts, update, seed)[rank::world]
        prompts = [self.prompts[number] for number in numbers for _ in range(rollout.answers)]
        own = self.sound()
        self._answers = self.sample(prompts, seed_of(seed, "answers", update, rank))
        scores, drift, reading = self.judge(self._answers)
        mask = self._answers.answer_mask
        kl = drift.sum(dim=1)
        self.figures = self._means(
            reward=(scores, None), kl=(kl, None), entropy=(reading.entropy, mask), answer_tokens=(mask.sum(1), None)
        )
        self.figures["kl_coefficient"] = self.kl.coefficient
        check(self.job.settings.bounds, self.figures)
        self.last_good = own
        heartbeat.note("training")
        self._judged = known = self._advantages(scores, drift, reading)
        self.figures["explained_variance"] = ppo_math.explained_variance(known.values, known.returns, mask, self._total)
        self.kl.update(self.figures["kl"], len(numbers) * rollout.answers * world)
        self._turns = self.plan.turns(seed, update, rank)

    def _advantages(self, scores: Tensor, drift: Tensor, reading: PolicyReading) -> Judged:
        ppo, mask = self.job.settings.ppo, self._answers.answer_mask
        rewards = ppo_math.token_rewards(scores, drift, mask, self.kl.coefficient)
        if ppo.whiten_rewards:
            rewards = ppo_math.whitened(rewards, mask, self._total, centred=False)
        advantages, returns = ppo_math.advantages_of(rewards, reading.values, mask, ppo.gamma, ppo.gae_lambda)
        return Judged(reading.logps, reading.values, ppo_math.whitened(advantages, mask, self._total), returns)

    @torch.no_grad()
    def _note(self, now: PolicyReading, known: Judged, mask: Tensor, policy: Tensor, value: Tensor) -> None:
        """Keep this pass's sums: tokens, both losses, tokens outside of the clip, and the largest ratio either way."""
        change = ((now.logps - known.logps) * mask).detach()
        outside = ((change.exp() - 1.0).abs() > self.job.settings.ppo.clip).sum()
        sums = [mask.sum(), policy, value, outside, change.abs().max().exp()]
        self._passes.append(torch.stack([entry.detach().float() for entry in sums]))

    def _end_of_step(self, last: bool) -> None:
        """Look at the step's figures over all processes; at the end of an update, have them logged."""
        local = torch.stack(self._passes)
        seen = self.accelerator.gather(local)
        tokens, policy, value, outside = (float(number) for number in seen[:, :4].sum(dim=0))
        figures = {"policy_loss": policy / tokens, "value_loss": value / tokens, "clipped": outside / tokens}
        check(self.job.settings.bounds, {**figures, "largest": float(seen[:, 4].max())})
        self._by_step.append({**figures, "ratio": float(seen[:, 4].max())})
        self._passes.clear()
        if last:
            steps, self._by_step = self._by_step, []
            self.figures |= {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
            check(self.job.settings.bounds, self.figures)
            self._unlogged = dict(self.figures)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save the policy without its value head, which is no part of a language model."""
        state = self.model.state_dict() if state_dict is None else state_dict
        super()._save(output_dir, {name: tensor for name, tensor in state.items() if VALUE_HEAD not in name})

    def _total(self, tensor: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(tensor.detach().clone().float(), reduction="sum")
        return total

    def _means(self, **figures: tuple[Tensor, Tensor | None]) -> dict[str, float]:
        """Means over all processes, each over its mask where it has one."""
        sums = []
        for tensor, mask in figures.values():
            kept = torch.ones_like(tensor) if mask is None else mask
            sums += [(tensor * kept).sum().float(), kept.sum().float()]
        totals = self._total(torch.stack(sums)).tolist()
        return {name: totals[2 * i] / totals[2 * i + 1] for i, name in enumerate(figures)}


def build(job: OnlineJob, run: Path, tokenizer: Any, prompts: list[list[int]], reward: Reward) -> Any:
    """Policy, callbacks and trainer put together."""
    plan = plan_online(job.settings, job.processes, len(prompts))
    arguments = TrainingArguments(**online_options(job, run, plan))
    policy = load_policy(job)
    disable_dropout_in_model(policy)
    add_value_head(policy)
    keep = KeepOnlineState()
    callbacks = [keep, *common_callbacks(job, CURVES)]
    keep.trainer = trainer = PpoTrainer(
        job, plan, reward, prompts, model=policy, args=arguments, processing_class=tokenizer, callbacks=callbacks
    )
    return unprinted(trainer)


def clean(policy: Any) -> None:
    """Take the value head away, before a policy is counted, compared and saved."""
    delattr(bare(policy), VALUE_HEAD)
