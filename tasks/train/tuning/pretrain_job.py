"""What stage pretrain hands to its workers."""

from __future__ import annotations

from typing import ClassVar

from tasks.train.job import TrainingJob
from tasks.training_params import PretrainParams


class PretrainJob(TrainingJob):
    """`data` has documents and general: the domain's documents and general examples as Parquet tables."""

    sources: ClassVar[tuple[str, ...]] = (
        "train/tuning/batches.py",
        "train/tuning/pretrain_job.py",
        "train/tuning/pretrain_rows.py",
        "train/tuning/pretrain_worker.py",
        "train/tuning/scoring.py",
        "train/tuning/trainer.py",
    )
    worker: ClassVar[str] = "tasks.train.tuning.pretrain_worker"

    settings: PretrainParams
