"""What stage pretrain hands to its workers."""

from __future__ import annotations

from typing import ClassVar

from tasks.core.training_params import PretrainParams
from tasks.train.run.job import TrainingJob


class PretrainJob(TrainingJob):
    """`data` has documents and general: the domain's documents and general examples as Parquet tables."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/tuning", "train/pretrain")
    worker: ClassVar[str] = "tasks.train.pretrain.worker"

    settings: PretrainParams
