"""One process of PPO, RLOO or GRPO; out of its bounds it ends with the last good policy and says why."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tasks.core.records import Example, read_own_jsonl
from tasks.train.align.stage import OnlineJob
from tasks.train.run.worker import finish, load_options, load_tokenizer, run_worker


def train(job: OnlineJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    from tasks.train.align.online.judging import restore
    from tasks.train.align.online.policy import prompt_rows

    tokenizer = load_tokenizer(job.base_model)
    longest = job.settings.rollout.max_prompt_tokens
    (prompts, left_out), (held_out, _) = (
        prompt_rows(tokenizer, job.system, read_own_jsonl(job.data[name], Example), longest)
        for name in ("prompts", "held_out")
    )
    method = method_of(job)
    trainer = method.build(job, run, tokenizer, prompts, load_reward(job, tokenizer))
    if checkpoint:
        restore(trainer, Path(checkpoint))
    result = trained(trainer, checkpoint, held_out)
    method.clean(trainer.policy)
    finish(trainer, run, method.CURVES, prompts=len(prompts), prompts_too_long=left_out, **result)


def method_of(job: OnlineJob) -> Any:
    """The module of PPO, or that of its peers: its `build`, what is to be `clean`ed off its policy, its `CURVES`."""
    if job.settings.alignment == "ppo":
        from tasks.train.align.online import ppo_trainer

        return ppo_trainer
    from tasks.train.align.online import group_trainer

    return group_trainer


def trained(trainer: Any, checkpoint: str | None, held_out: list[list[int]]) -> dict[str, Any]:
    """Train, and judge on held-out prompts; out of bounds the last good policy is put back, and `stopped` says why."""
    from tasks.train.align.online.judging import OutOfBounds, check, compare_held_out
    from tasks.train.run.held_weights import put

    stopped = ""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.sound()
        result = compare_held_out(trainer, held_out)
        if result["held_out_prompts"] > 1:  # a figure that is missing was no number
            watched = {name: result.get(f"held_out_{name}", math.nan) for name in ("kl", "reward", "entropy")}
            check(trainer.job.settings.bounds, watched)
    except OutOfBounds as reason:
        stopped = str(reason)
        if trainer.is_world_process_zero():
            print(f"{trainer.job.stage}: stopped by itself: {stopped}; the last good policy is kept", flush=True)
        trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)
        put(trainer.policy, trainer.last_good)
        result = compare_held_out(trainer, held_out)
    return {"stopped": stopped, **result}


def load_reward(job: OnlineJob, tokenizer: Any) -> Any:
    """The frozen reward model. Call it before the trainer's arguments exist, or ZeRO-3 shares out what is loaded."""
    from accelerate import PartialState

    from tasks.train.align.online.judging import load_reward_model

    options = load_options(job)
    place = tokenizer.pad_token_id, options["attn_implementation"]
    model = load_reward_model(job.reward, job.reward_base, options["dtype"], *place)
    return model.to(PartialState().device)


if __name__ == "__main__":
    run_worker(OnlineJob, train)
