"""Carry a training out: launch its workers, go on from the last checkpoint where a process died, measure it.

A run that ends because of its settings or data (the worker said so) is not tried again; one that lost a process is,
`max_restarts` times, because such faults pass. A process that is stopped or hung counts as lost
(tasks/train/run/heartbeat.py).
"""

from __future__ import annotations

from pathlib import Path

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json
from tasks.core.prices import read_prices
from tasks.core.words import gib, rough
from tasks.train.run.checkpoints import REFUSED, final_of, last_complete
from tasks.train.run.costs import Attempt, write_measured
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import LaunchError, launch
from tasks.train.sizing.estimate import estimate_of, size


class CannotFit(FlywheelError):
    """The training needs more memory or disk than there is."""


def run_folder(job: TrainingJob) -> Path:
    """Where the checkpoints of this very training lie."""
    return layout.CHECKPOINTS / job.stage / job.digest()


def execute(job: TrainingJob, run: Path) -> Path:
    """Run the workers unless this very job has ended before; returns the folder with what it gave.

    Before it begins, but not where it goes on, what it will take is estimated.

    Raises:
        CannotFit: the machine has not the memory or the disk; nothing was started.
        LaunchError: a worker failed, more often than `max_restarts` allows or for a reason that will not pass.
    """
    restarts = 0
    job.write(run / "job.json")
    if final_of(run) is None and last_complete(run) is None:
        preflight(job)
    while (done := final_of(run)) is None:
        try:
            _attempt(job, run)
        except LaunchError as error:
            if (run / REFUSED).exists() or restarts >= job.settings.max_restarts:
                raise
            restarts += 1
            where = "its last checkpoint" if last_complete(run) else "the beginning"
            print(
                f"{job.stage}: {error}; going on from {where} ({restarts} of {job.settings.max_restarts})", flush=True
            )
            continue
        if final_of(run) is None:
            raise LaunchError("the workers ended without an error and without a result")
    write_measured(job, run, done)
    return done


def _attempt(job: TrainingJob, run: Path) -> None:
    """Launch the workers once, watched, from the last complete checkpoint."""
    (run / REFUSED).unlink(missing_ok=True)
    checkpoint = last_complete(run)
    arguments = [str(run / "job.json"), str(run)] + ([str(checkpoint)] if checkpoint else [])
    attempt = Attempt(run)
    try:
        launch(job.settings.launch, job.worker, arguments, attempt.look)
    finally:
        attempt.end()


def preflight(job: TrainingJob) -> None:
    """Size a job that is about to start, and keep what is predicted beside what it will really take.

    Raises:
        CannotFit: it would not fit; the message says what would.
    """
    found = estimate_of(job, size(job, "doubt"), read_prices())
    write_json(layout.MEASURED / f"{job.stage}.predicted.json", found)
    if not found["fits"]:
        instead = "; ".join(found["would_fit"]) or "no change that is known here"
        raise CannotFit(f"{job.stage} cannot run here: {'; '.join(found['reasons'])}. What would fit: {instead}")
    took, memory = found["time"], found["memory"]
    print(
        f"{job.stage}: {found['work']['steps']} steps, about {rough(took['seconds'])} ({took['source']}), "
        f"{gib(memory['needed'])} of {gib(memory['available'])} memory",
        flush=True,
    )
