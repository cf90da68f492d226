"""What stage sft hands to its workers."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tasks.core.training_params import SftParams
from tasks.train.run.job import TrainingJob


class SftJob(TrainingJob):
    """`data` has train and validation: examples as JSON lines."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/tuning", "train/sft")
    worker: ClassVar[str] = "tasks.train.sft.worker"

    settings: SftParams
    keep_best: bool = False  # the weights of the lowest validation loss, not the last
    plot: Path | None = None  # where the loss curve is drawn while it trains
