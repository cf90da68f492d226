"""RLOO and GRPO: several answers to a prompt, each judged against its siblings, through TRL's own trainers.

Ours are the prompts' tokens, the reward model, the bounds and the last good policy. RLOO: Ahmadian et al. 2024 (arXiv
2402.14740); GRPO: Shao et al. 2024 (arXiv 2402.03300), its loss as in the paper. Needs torch and trl. Limits: the bound
on ratios is not watched, because TRL does not log the largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import TrainerCallback
from trl import GRPOTrainer, RLOOTrainer

from tasks.train.align.online.judging import Judging, KeepOnlineState, Reward, check
from tasks.train.align.online.policy import load_policy, online_options
from tasks.train.align.stage import OnlineJob
from tasks.train.run.callbacks import common_callbacks, unprinted
from tasks.train.run.held_weights import Held
from tasks.train.run.methods import MethodUnavailable, drop_reference
from tasks.train.run.online_plan import OnlinePlan, plan_online

CURVES = (
    ("reward", "reward"),
    ("reward_std", "reward spread"),
    ("kl", "kl a token"),
    ("entropy", "entropy"),
    ("completions/mean_length", "answer_tokens"),
)


class Grouped(Judging):
    """What ours add to TRL's trainers, whose data names each prompt by its number."""

    prompts: Sequence[list[int]]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """The prompts as they are encoded everywhere; TRL would put the tokenizer's special tokens before them."""
        return [list(self.prompts[int(number)]) for number in prompts], None, {}

    def _calculate_rewards(self, *given: Any) -> torch.Tensor:
        """TRL's. Raises OutOfBounds: in every process where one is no number; TRL would leave it out in silence."""
        parent: Any = super()
        rewards: torch.Tensor = parent._calculate_rewards(*given)
        check(self.job.settings.bounds, {"reward": rewards.mean().item()})
        return rewards


class Rloo(Grouped, RLOOTrainer):
    """RLOOTrainer over encoded prompts."""


class Grpo(Grouped, GRPOTrainer):
    """GRPOTrainer over encoded prompts."""


class WatchBounds(TrainerCallback):
    """Stops a run that leaves its bounds; the policy that last stayed inside is kept."""

    trainer: Any  # is built after its callbacks, and set then

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the policy that is about to answer. Raises OutOfBounds: a number of it is not finite."""
        self._before: Held = self.trainer.sound()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Judge it by its answers, a later pass over them by its loss only. Raises OutOfBounds: it is outside."""
        if not logs or "loss" not in logs:
            return
        figures, bounds = {"loss": float(logs["loss"])}, self.trainer.job.settings.bounds
        if "reward" not in logs:
            check(bounds, figures)
            return
        figures |= {name: float(logs[name]) for name in ("reward", "entropy") if name in logs}
        figures["kl"] = float(logs.get("kl", 0.0)) * float(logs["completions/mean_length"])
        check(bounds, figures)
        self.trainer.last_good = self._before


def build(job: OnlineJob, run: Path, tokenizer: Any, prompts: list[list[int]], reward: Reward) -> Any:
    """Policy, callbacks and trainer put together. Raises MethodUnavailable: the method does not work here."""
    from datasets import Dataset

    if job.settings.method == "full" and job.start:
        raise MethodUnavailable(
            f"{job.settings.alignment} cannot train every weight of an adapter's policy: TRL would hold it to the base "
            "model. Set align.method to the one of sft, or sft.method: full"
        )
    plan = plan_online(job.settings, job.processes, len(prompts))
    arguments = group_arguments(job, run, plan)
    keep, watch = KeepOnlineState(), WatchBounds()
    kind = Rloo if job.settings.alignment == "rloo" else Grpo
    trainer: Any = kind(
        model=load_policy(job),
        reward_funcs=scorer(reward, prompts, tokenizer.pad_token_id, plan.micro, arguments.device),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": str(number)} for number in range(len(prompts))]),
        processing_class=tokenizer,
        callbacks=[watch, keep, *common_callbacks(job, CURVES)],
    )
    trainer.prompts = prompts
    trainer.remember(job, plan, reward)
    keep.trainer = watch.trainer = trainer
    return unprinted(trainer)


def group_arguments(job: OnlineJob, run: Path, plan: OnlinePlan) -> Any:
    """TRL's configuration of a job; each update's answers are one step's batch, `iterations` times."""
    from trl import GRPOConfig, RLOOConfig

    settings = job.settings
    rloo = settings.alignment == "rloo"
    section = settings.rloo if rloo else settings.grpo
    options = {
        **online_options(job, run, plan),
        "num_generations": settings.rollout.answers,
        "max_completion_length": settings.rollout.max_answer_tokens,
        "temperature": settings.rollout.temperature,
        "top_k": 0,
        "top_p": 1.0,
        "generation_kwargs": {"remove_invalid_values": True},  # see rollouts.answer
        "beta": section.beta,
        "epsilon": section.clip,
        "num_iterations": section.iterations,
        "disable_dropout": True,
    }
    return RLOOConfig(**options) if rloo else GRPOConfig(**options, loss_type="grpo")


clean = drop_reference  # before a policy is counted, compared and saved


def scorer(
    reward: Reward, encoded: Sequence[list[int]], pad: int, size: int, device: torch.device
) -> Callable[..., list[float]]:
    """The reward model as TRL asks for it, `size` answers at a time; `encoded` are prompts' token ids by number."""

    def score(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rows = [[*encoded[int(number)], *given] for number, given in zip(prompts, completion_ids, strict=True)]
        batches = [padded(rows[first : first + size], pad, device) for first in range(0, len(rows), size)]
        return [number for batch in batches for number in reward(*batch).tolist()]

    return score


def padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both (rows, columns), padded on the right."""
    ids = [torch.tensor(row, device=device) for row in rows]
    masks = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
    return pad_sequence(ids, batch_first=True, padding_value=pad), masks
