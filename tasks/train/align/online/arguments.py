"""What PPO, RLOO and GRPO are started with: the policy with what its method trains, and the trainer's arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.train.align.stage import OnlineJob
from tasks.train.run.methods import prepared, refuse_partition
from tasks.train.run.online_plan import OnlinePlan
from tasks.train.run.worker import common_arguments, load_model


def load_policy(job: OnlineJob) -> Any:
    """The policy with what the method trains; call it once the trainer's arguments exist.

    It is they that tell transformers of the partition: before, ZeRO-3 is neither seen nor used to load.

    Raises MethodUnavailable: the method does not work in this partition of the weights.
    """
    refuse_partition(job)  # before anything is loaded
    return prepared(load_model(job), job)


def online_options(job: OnlineJob, run: Path, plan: OnlinePlan) -> dict[str, Any]:
    """What the configurations of all three methods have in common."""
    return {
        **common_arguments(job, run),
        "max_steps": plan.steps,
        "per_device_train_batch_size": plan.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "save_steps": plan.save_every(job.settings.save_every),
    }
