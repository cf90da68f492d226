"""What stage reward hands to its workers."""

from __future__ import annotations

from typing import ClassVar

from tasks.core.training_params import RewardParams
from tasks.train.run.job import TrainingJob


class RewardJob(TrainingJob):
    """`data` has train and validation: preferences as JSON lines."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/preference", "train/reward")
    worker: ClassVar[str] = "tasks.train.reward.worker"

    settings: RewardParams
