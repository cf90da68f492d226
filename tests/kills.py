"""Training stages as real processes that are killed: started, waited for, killed in several ways, compared."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from tasks.core import layout
from tasks.train.run.checkpoints import is_complete, step_of

WAIT_SECONDS = 240.0


@dataclass(frozen=True)
class Trained:
    """A stage that trains: its name, which is also its folder's, its workers' module below tasks.train, and outputs."""

    name: str
    worker: str
    outputs: tuple[str, ...]

    def run(self, folder: Path) -> Path:
        """The folder of its checkpoints, once it is there."""
        [run] = (folder / layout.CHECKPOINTS / self.name).iterdir()
        return run


ALIGNED = ("models/align", "reports/details/align.json", "reports/plots/align.csv")
SFT = Trained("sft", "sft.worker", ("models/sft", "reports/details/sft.json", "reports/plots/sft_loss.csv"))
REWARD = Trained(
    "reward",
    "reward.worker",
    ("models/reward", "reports/details/reward.json", "reports/plots/reward_loss.csv"),
)
PREFERENCE = Trained("align", "align.worker", ALIGNED)
PPO = Trained("align", "align.online.worker", ALIGNED)


def start(trained: Trained, folder: Path, root: Path, **environment: str) -> subprocess.Popen[str]:
    """The stage as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"tasks.train.{trained.name}.stage"],
        cwd=folder,
        env={**layout.child_environment(), "PYTHONPATH": str(root), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(stage: subprocess.Popen[str]) -> str:
    """Wait for the stage's good end; returns what it said."""
    said, _ = stage.communicate(timeout=WAIT_SECONDS)
    assert stage.returncode == 0, said
    return said


def outputs(trained: Trained, folder: Path) -> dict[str, bytes]:
    """Every byte the stage wrote for others."""
    places = [folder / name for name in trained.outputs]
    paths = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def wait_until(stage: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait for a moment of a run that has not ended."""
    end = time.monotonic() + WAIT_SECONDS
    while not reached():
        assert stage.poll() is None, stage.communicate()[0]
        assert time.monotonic() < end, "the moment never came"
        time.sleep(0.01)


def wait_for_checkpoint(trained: Trained, folder: Path, stage: subprocess.Popen[str], step: int) -> None:
    """Wait until a complete checkpoint of at least that step lies there, in the middle of the run."""
    runs = folder / layout.CHECKPOINTS / trained.name
    wait_until(
        stage,
        lambda: any(step_of(path.parent) >= step for path in runs.glob("*/checkpoint-*/MANIFEST.json")),
    )


def wait_for_step(trained: Trained, folder: Path, stage: subprocess.Popen[str], step: int) -> None:
    """Wait until the first process's beat tells of that step, wherever in it that may be."""

    def reached() -> bool:
        for path in (folder / layout.CHECKPOINTS / trained.name).glob("*/beats/0.json"):
            try:
                return bool(json.loads(path.read_text())["step"] >= step)
            except (OSError, ValueError):
                return False
        return False

    wait_until(stage, reached)


def workers(trained: Trained, stage: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, without their launcher."""
    module = f"tasks.train.{trained.worker}"
    children = psutil.Process(stage.pid).children(recursive=True)
    lines = [(child, child.cmdline()) for child in children]
    return [child for child, line in lines if module in line and "accelerate.commands.launch" not in line]


def kill_worker(trained: Trained, stage: subprocess.Popen[str]) -> None:
    """kill -9 of one worker."""
    workers(trained, stage)[-1].kill()


def fill_disk(trained: Trained, stage: subprocess.Popen[str]) -> None:
    """From now on no file of these workers can grow past a kilobyte: the next checkpoint fails in its middle."""
    for worker in workers(trained, stage):
        worker.rlimit(resource.RLIMIT_FSIZE, (1024, 1024))


def kill_stage(trained: Trained, stage: subprocess.Popen[str]) -> None:
    """kill -9 of the stage's own process alone: launcher and workers must follow by themselves."""
    os.kill(stage.pid, signal.SIGKILL)


def kill_all(trained: Trained, stage: subprocess.Popen[str]) -> None:
    """kill -9 of stage, launcher and workers, in one go."""
    for victim in [psutil.Process(stage.pid), *psutil.Process(stage.pid).children(recursive=True)]:
        os.kill(victim.pid, signal.SIGKILL)


def end_of(stage: subprocess.Popen[str], kill: Callable[[], None]) -> None:
    """Kill, and see that stage, launcher and workers are all gone."""
    processes = psutil.Process(stage.pid).children(recursive=True)
    kill()
    assert stage.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []


def last_checkpoint(trained: Trained, folder: Path) -> Path:
    """The latest complete checkpoint."""
    return max((path for path in trained.run(folder).glob("checkpoint-*") if is_complete(path)), key=step_of)
