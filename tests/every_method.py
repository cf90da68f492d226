"""Trains every method for a few steps, one after another, in the processes that `accelerate launch` started.

A process start with the libraries costs longer than the training of a two-layer model: so tests start two processes
once. Run as `python -m tests.every_method JOBS_FOLDER`: one job a file, JOBS_FOLDER/<name>.json; leaves
JOBS_FOLDER/<name>/final for each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from tasks.core.files import write_json
from tasks.train.run.export import make_plain
from tasks.train.run.job import read_job
from tasks.train.run.worker import check_agreement, quiet, result_of
from tasks.train.sft.stage import SftJob
from tasks.train.sft.worker import CURVES, build_trainer, counts, training_arguments


def train(path: Path) -> None:
    """Train one job as its stage's worker does, but leave the process group to the next one."""
    job, run = read_job(path, SftJob), path.with_suffix("")
    arguments = training_arguments(job, run, None)
    arguments.save_strategy = "no"
    trainer = build_trainer(job, arguments)
    trainer.train()
    check_agreement(trainer)
    trainer.save_model(str(run / "final"))
    if trainer.is_world_process_zero():
        make_plain(trainer.model, run / "final")
        write_json(run / "final/result.json", result_of(trainer, CURVES, **counts(job, trainer)))
    dist.barrier()


def main() -> None:
    """Train all jobs of the folder."""
    quiet()
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        train(path)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
