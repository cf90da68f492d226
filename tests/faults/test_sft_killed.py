"""Training that is killed goes on to the very same weights. Real processes, real kills; a model of two layers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks import layout
from tasks.files import verify_manifest
from tasks.records import Example, make_example
from tasks.train.checkpoints import is_complete, step_of
from tests.training import lay_training

pytestmark = pytest.mark.slow

# Dropout draws random numbers at every step, so that a resumed run must restore their state too.
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj", "v_proj", "down_proj"]}
SETTINGS = {"precision": "bf16", "batch_size": 2, "epochs": 2, "save_every": 2, "learning_rate": 1e-3, "lora": LORA}
OUTPUTS = ("models/sft/adapter", "reports/metrics", "reports/plots")


def an_example(number: int) -> Example:
    return make_example(
        instruction=f"What is rule {number}?",
        output="Build well. " * (number % 5 + 1),
        language="en",
        origin="human",
        source=("test",),
    )


def build(folder: Path, root: Path, model: Path) -> Path:
    """A repository with 31 examples: two epochs of 8 steps, a checkpoint at every second."""
    return lay_training(folder, root, model, map(an_example, range(31)), map(an_example, range(50, 53)), SETTINGS)


def start(folder: Path, root: Path) -> subprocess.Popen[str]:
    environment = {**layout.child_environment(), "PYTHONPATH": str(root)}
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.train.sft"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(folder: Path, root: Path) -> str:
    """Run the stage to its end; returns what it said."""
    stage = start(folder, root)
    said, _ = stage.communicate(timeout=240)
    assert stage.returncode == 0, said
    return said


def outputs(folder: Path) -> dict[str, bytes]:
    """Every byte the stage wrote for others."""
    paths = [path for name in OUTPUTS for path in sorted((folder / name).rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def undisturbed(root: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run gives that nobody disturbs."""
    folder = build(tmp_path_factory.mktemp("undisturbed"), root, tiny_model)
    finish(folder, root)
    verify_manifest(folder / "models/sft/adapter")
    return outputs(folder)


def wait_for_checkpoint(folder: Path, stage: subprocess.Popen[str], step: int) -> None:
    """Wait until a complete checkpoint of at least that step lies there, in the middle of the run."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        found = folder.glob(".flywheel/checkpoints/sft/*/checkpoint-*")
        if any(step_of(path) >= step and (path / "MANIFEST.json").exists() for path in found):
            return
        assert stage.poll() is None, stage.communicate()[0]
        time.sleep(0.01)
    pytest.fail("no checkpoint was written")


def kill_all(stage: subprocess.Popen[str]) -> None:
    """kill -9 of stage, launcher and workers, in one go."""
    victims = [psutil.Process(stage.pid), *psutil.Process(stage.pid).children(recursive=True)]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)


def kill_stage(stage: subprocess.Popen[str]) -> None:
    """kill -9 of the stage's own process alone: launcher and workers must follow by themselves."""
    os.kill(stage.pid, signal.SIGKILL)


def kill_worker(stage: subprocess.Popen[str]) -> None:
    """kill -9 of one worker: the stage must end with an error, and the other worker with it."""
    workers = [
        process
        for process in psutil.Process(stage.pid).children(recursive=True)
        if "tasks.train.sft_worker" in process.cmdline() and "accelerate.commands.launch" not in process.cmdline()
    ]
    os.kill(workers[-1].pid, signal.SIGKILL)


def interrupt(folder: Path, root: Path, kill: Callable[[subprocess.Popen[str]], None], step: int) -> Path:
    """Start the stage and kill it after that step; returns the last complete checkpoint it left behind."""
    stage = start(folder, root)
    wait_for_checkpoint(folder, stage, step)
    processes = psutil.Process(stage.pid).children(recursive=True)
    assert len(processes) >= 3  # launcher and two workers
    kill(stage)
    assert stage.wait(timeout=60) != 0
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert alive == []
    assert not (folder / "models/sft/adapter").exists()
    [run] = (folder / ".flywheel/checkpoints/sft").iterdir()
    return max((path for path in run.glob("checkpoint-*") if is_complete(path)), key=step_of)


def leave_torn_checkpoint(kept: Path) -> None:
    """What a kill in the middle of writing leaves: later than all others, without its marker, not to be used."""
    torn = kept.with_name("checkpoint-15")
    shutil.copytree(kept, torn)
    (torn / "MANIFEST.json").unlink()


@pytest.mark.timeout(900)
def test_a_run_killed_three_times_ends_with_the_bytes_of_an_undisturbed_one(
    undisturbed: dict[str, bytes], root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = build(tmp_path, root, tiny_model)
    reached = 0
    for kill, step in ((kill_worker, 2), (kill_stage, 6), (kill_all, 10)):
        kept = interrupt(folder, root, kill, step)
        assert step_of(kept) > reached  # it went on from where it was, and did not begin anew
        reached = step_of(kept)
    leave_torn_checkpoint(kept)
    said = finish(folder, root)
    assert f"going on from step {reached} of 16" in said
    assert outputs(folder) == undisturbed
    assert not kept.parent.exists()
