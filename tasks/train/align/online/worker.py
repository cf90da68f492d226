"""One process of an alignment in which the policy answers while it trains: PPO, RLOO or GRPO.

Started by `accelerate launch`; tasks.train.align.stage owns all of them. See tasks/train/run/worker.py for what it is
started with and what it leaves. A run that leaves its bounds is not an error: it ends with the last good policy and
says why.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.core.records import Example, read_own_jsonl
from tasks.train.align.online.arguments import load_policy, online_options
from tasks.train.align.stage import OnlineJob
from tasks.train.run.methods import drop_reference
from tasks.train.run.online_plan import plan_online
from tasks.train.run.worker import Curve, finish, load_options, load_tokenizer, run_worker

FIGURES = ("reward", "kl", "entropy", "kl_coefficient", "answer_tokens")
LOSSES = ("policy_loss", "value_loss", "explained_variance", "clipped", "ratio")
CURVES = tuple((name, name) for name in FIGURES + LOSSES)


def train(job: OnlineJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    from tasks.train.align.online.rollouts import prompt_rows
    from tasks.train.align.online.state import restore

    tokenizer = load_tokenizer(job)
    longest = job.settings.rollout.max_prompt_tokens
    (prompts, left_out), (held_out, _) = (
        prompt_rows(tokenizer, job.system, read_own_jsonl(job.data[name], Example), longest)
        for name in ("prompts", "held_out")
    )
    build, clean, shown = parts_of(job)
    trainer = build(job, run, tokenizer, prompts, load_reward(job, tokenizer))
    if checkpoint:
        restore(trainer, Path(checkpoint))
    result = trained(trainer, checkpoint, held_out)
    clean(trainer.policy)
    finish(trainer, run, shown, prompts=len(prompts), prompts_too_long=left_out, **result)


def parts_of(job: OnlineJob) -> tuple[Callable[..., Any], Callable[[Any], None], tuple[Curve, ...]]:
    """What differs between PPO and its peers: the trainer's builder, what cleans its policy, and its curves."""
    if job.settings.alignment == "ppo":
        from tasks.train.align.online.policy import drop_value_head

        return build_ppo, drop_value_head, CURVES
    from tasks.train.align.online import group_trainer

    return group_trainer.build_group, drop_reference, group_trainer.CURVES


def trained(trainer: Any, checkpoint: str | None, held_out: list[list[int]]) -> dict[str, Any]:
    """Train, and judge what came out on prompts that it never saw; outside of the bounds the last good policy is put
    back and judged.

    Returns:
        `stopped`: why the run ended by itself, or nothing; and the figures of compare_held_out.
    """
    from tasks.train.align.online.bounds import OutOfBounds, check
    from tasks.train.align.online.held_out import compare_held_out
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
        stop(trainer, stopped)
        put(trainer.policy, trainer.last_good)
        result = compare_held_out(trainer, held_out)
    return {"stopped": stopped, **result}


def stop(trainer: Any, why: str) -> None:
    """End a training that left its bounds as transformers would have, and say so."""
    if trainer.is_world_process_zero():
        print(f"{trainer.job.stage}: stopped by itself: {why}; the last good policy is kept", flush=True)
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)


def build_ppo(job: OnlineJob, run: Path, tokenizer: Any, prompts: list[list[int]], reward: Any) -> Any:
    """Policy, callbacks and trainer put together; `reward` as in PpoTrainer."""
    from transformers import TrainingArguments
    from trl.trainer.utils import disable_dropout_in_model

    from tasks.train.align.online.policy import add_value_head
    from tasks.train.align.online.ppo_trainer import PpoTrainer
    from tasks.train.align.online.state import KeepOnlineState
    from tasks.train.run.callbacks import common_callbacks, unprinted

    plan = plan_online(job.settings, job.processes, len(prompts))
    arguments = TrainingArguments(**online_options(job, run, plan))
    policy = load_policy(job)
    disable_dropout_in_model(policy)
    add_value_head(policy)
    keep = KeepOnlineState()
    keep.trainer = trainer = PpoTrainer(
        job=job,
        plan=plan,
        policy=policy,
        tokenizer=tokenizer,
        reward=reward,
        prompts=prompts,
        arguments=arguments,
        callbacks=[keep, *common_callbacks(job, CURVES)],
    )
    return unprinted(trainer)


def load_reward(job: OnlineJob, tokenizer: Any) -> Any:
    """The frozen reward model, in the precision of the job, on the device of this process.

    Call it before the trainer's arguments exist: once they do, ZeRO-3 would share out what is loaded.
    """
    from accelerate import PartialState

    from tasks.train.preference.reward_model import load_reward_model

    options = load_options(job)
    place = tokenizer.pad_token_id, options["attn_implementation"]
    model = load_reward_model(job.reward, job.reward_base, options["dtype"], *place)
    return model.to(PartialState().device)


if __name__ == "__main__":
    run_worker(OnlineJob, train)
