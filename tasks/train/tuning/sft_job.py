"""What stage sft hands to its workers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tasks.train.job import TrainingJob
from tasks.training_params import SftParams


class SftJob(TrainingJob):
    """`data` has train and validation: examples as JSON lines."""

    sources: ClassVar[tuple[str, ...]] = (
        "train/online/held_weights.py",
        "train/tuning/batches.py",
        "train/tuning/best.py",
        "train/tuning/low_rank.py",
        "train/tuning/packing.py",
        "train/tuning/scoring.py",
        "train/tuning/sft_job.py",
        "train/tuning/sft_worker.py",
        "train/tuning/tokens.py",
        "train/tuning/trainer.py",
    )
    worker: ClassVar[str] = "tasks.train.tuning.sft_worker"

    settings: SftParams
    keep_best: bool = False  # the weights of the lowest validation loss, not the last
    plot: Path | None = None  # where the loss curve is drawn while it trains
