"""RLOO and GRPO: several answers to a prompt, each judged against its siblings, through TRL's own trainers.

TRL generates, computes rewards less the cost of drifting from the SFT policy (RLOO) or adds that cost to the loss
(GRPO), and brings DeepSpeed; ours are the reward model, the bounds and the last good policy.
RLOO: Ahmadian et al. 2024 (arXiv 2402.14740); GRPO: Shao et al. 2024 (arXiv 2402.03300), its loss as in the paper.
Needs torch, transformers and trl: import it in a worker process only. Limits: of the bounds, the one on ratios is not
watched, because TRL does not log the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from tasks.records import Example, read_own_jsonl
from tasks.train.align import PLOT, plot_of
from tasks.train.align_job import OnlineJob
from tasks.train.callbacks import LivePlot, MarkCheckpoints, Progress
from tasks.train.methods import MethodUnavailable, prepared
from tasks.train.online.bounds import OutOfBounds, check
from tasks.train.online.held_weights import Held, held, put
from tasks.train.online.plan import plan_online
from tasks.train.online.rollouts import prompt_rows
from tasks.train.online.state import KeepOnlineState, restore
from tasks.train.online.worker import load_reward, online_options
from tasks.train.worker import check_agreement, history_of, load_model, load_tokenizer, result_of, save_final

CURVES = (
    ("reward", "reward"),
    ("reward_std", "reward spread"),
    ("kl", "kl a token"),
    ("entropy", "entropy"),
    ("completions/mean_length", "answer_tokens"),
)


class WatchBounds(TrainerCallback):
    """Stops a run that leaves its bounds; the policy that last stayed inside is kept."""

    trainer: Any  # is built after its callbacks, and set then

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Remember the policy that is about to answer."""
        self._before: Held = held(self.trainer.policy)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Judge it by its answers.

        Raises:
            OutOfBounds: they are outside of the bounds.
        """
        if not logs or "reward" not in logs:
            return
        watched: tuple[str, ...] = ("loss", "reward", "entropy")
        figures = {name: float(logs[name]) for name in watched if name in logs}
        figures["kl"] = float(logs.get("kl", 0.0)) * float(logs["completions/mean_length"])
        check(self.trainer.job.settings.bounds, figures)
        self.trainer.last_good = self._before


def train_group(job: OnlineJob, run: Path, checkpoint: str | None) -> None:
    """RLOO or GRPO from beginning to end."""
    trainer, counts = build_group(job, run)
    if checkpoint:
        restore(trainer, Path(checkpoint))
    stopped = ""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except OutOfBounds as reason:
        from tasks.train.online.worker import stop

        stopped = str(reason)
        stop(trainer, stopped)
        put(trainer.policy, trainer.last_good)
    if "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")  # TRL's copy of the SFT adapter
    check_agreement(trainer)
    save_final(trainer, run, result_of(trainer, CURVES, **counts, stopped=stopped))


def build_group(job: OnlineJob, run: Path) -> tuple[Any, dict[str, int]]:
    """Policy, reward model, prompts and trainer put together; with the numbers of prompts used and left out.

    Raises:
        MethodUnavailable: `full` from an adapter on.
    """
    from datasets import Dataset
    from trl import GRPOTrainer, RLOOTrainer

    if job.settings.method == "full" and job.start:
        raise MethodUnavailable(
            f"{job.settings.alignment} cannot train every weight of an adapter's policy: TRL would hold it to the base "
            "model. Set align.method to the one of sft, or sft.method: full"
        )
    tokenizer = load_tokenizer(job)
    examples = read_own_jsonl(job.data["prompts"], Example)
    prompts, left_out = prompt_rows(tokenizer, job.system, examples, job.settings.rollout.max_prompt_tokens)
    keep, watch = KeepOnlineState(), WatchBounds()
    kind: Any = RLOOTrainer if job.settings.alignment == "rloo" else GRPOTrainer
    trainer = kind(
        model=prepared(load_model(job), job),
        reward_funcs=scorer(load_reward(job, tokenizer), tokenizer),
        args=group_arguments(job, run, len(prompts)),
        train_dataset=Dataset.from_list([{"prompt": tokenizer.decode(row)} for row in prompts]),
        processing_class=tokenizer,
        callbacks=[
            watch,
            keep,
            MarkCheckpoints(),
            Progress(job.stage),
            LivePlot(PLOT, lambda log: plot_of({"history": history_of(log, CURVES)})),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.job, trainer.policy = job, trainer.accelerator.unwrap_model(trainer.model)
    trainer.last_good = held(trainer.policy)
    keep.trainer = watch.trainer = trainer
    return trainer, {"prompts": len(prompts), "prompts_too_long": left_out}


def group_arguments(job: OnlineJob, run: Path, prompts: int) -> Any:
    """TRL's configuration of a job; each update's answers are one step's batch, `iterations` times."""
    from trl import GRPOConfig, RLOOConfig

    settings = job.settings
    plan = plan_online(settings, job.processes, prompts)
    rloo = settings.alignment == "rloo"
    section = settings.rloo if rloo else settings.grpo
    options = {
        **online_options(job, run, plan),
        "num_generations": settings.rollout.answers,
        "max_completion_length": settings.rollout.max_answer_tokens,
        "temperature": settings.rollout.temperature,
        "top_k": 0,
        "top_p": 1.0,
        "beta": section.beta,
        "epsilon": section.clip,
        "num_iterations": section.iterations,
        "disable_dropout": True,
    }
    return RLOOConfig(**options) if rloo else GRPOConfig(**options, loss_type="grpo")


def scorer(reward: Any, tokenizer: Any) -> Callable[..., list[float]]:
    """The reward model as TRL asks for it, a few answers at a time."""

    def score(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        asked = tokenizer(prompts, add_special_tokens=False)["input_ids"]
        rows = [prompt + answer for prompt, answer in zip(asked, completion_ids, strict=True)]
        width = max(map(len, rows))
        device = next(reward.parameters()).device
        tokens = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        scores: list[float] = reward(tokens, mask).tolist()
        return scores

    return score
