"""What stage reward hands to its workers."""

from __future__ import annotations

from typing import ClassVar

from tasks.train.job import TrainingJob
from tasks.training_params import RewardParams


class RewardJob(TrainingJob):
    """`data` has train and validation: preferences as JSON lines."""

    sources: ClassVar[tuple[str, ...]] = (
        "train/preference/rows.py",
        "train/preference/ranking.py",
        "train/preference/reward_job.py",
        "train/preference/reward_worker.py",
    )
    worker: ClassVar[str] = "tasks.train.preference.reward_worker"

    settings: RewardParams
