"""Launching: the children's environment, and that no child outlives the stage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.train.run import heartbeat
from tasks.train.run.launch import LaunchError, environment, launch, read_launch

# A stage that launches one worker with a child in a session of its own, whose process ids lie in the file `pids`.
STAGE = """
import signal
from tasks.train.run.launch import launch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
launch("one", "sleeper", [])
"""
SLEEPER = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "300"], start_new_session=True)
open("half", "w").write(f"{os.getpid()} {child.pid}")
os.rename("half", "pids")
time.sleep(300)
"""


@pytest.fixture
def one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> Path:
    """A folder with a launch of one process, whose workers are modules there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{root}{os.pathsep}{tmp_path}")
    (tmp_path / "infra/accelerate").mkdir(parents=True)
    (tmp_path / "infra/accelerate/one.yaml").write_text("distributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n")
    return tmp_path


def wait_until_gone(pids: list[int], seconds: float = 60.0) -> list[int]:
    """The process ids that still run after at most that many seconds."""
    end = time.monotonic() + seconds
    left = pids
    while left and time.monotonic() < end:
        left = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        time.sleep(0.05)
    return left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_whatever_ends_the_stage_ends_its_workers_and_what_they_started(number: int, one_process: Path) -> None:
    (one_process / "sleeper.py").write_text(SLEEPER)
    stage = subprocess.Popen([sys.executable, "-c", STAGE])
    while not (one_process / "pids").exists():
        assert stage.poll() is None
        time.sleep(0.05)
    pids = [int(pid) for pid in (one_process / "pids").read_text().split()]
    stage.send_signal(number)
    assert stage.wait(timeout=60) != 0
    assert wait_until_gone(pids) == []


def test_an_unknown_launch_names_those_there_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with pytest.raises(LaunchError, match=r"gpu80\.yaml does not exist; there are cpu, .*gpu8"):
        read_launch("gpu80")


def test_cpu_workers_have_one_thread_the_loopback_and_their_tools(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    found = environment(read_launch("cpu"))
    assert (found["OMP_NUM_THREADS"], found["DS_ACCELERATOR"], found["GLOO_SOCKET_IFNAME"]) == ("1", "cpu", "lo")
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert found["TORCH_EXTENSIONS_DIR"] == str(root / ".flywheel/cache/torch_extensions")
    assert found["HF_HUB_OFFLINE"] == "1"
    assert int(found["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) < 1024  # oneDNN's own, a gigabyte with batches of many lengths


@pytest.mark.parametrize("name", ["gpu1", "gpu8", "multinode"])
def test_gpu_workers_keep_threads_and_devices_as_they_are(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    found = environment(read_launch(name))
    assert "DS_ACCELERATOR" not in found and "GLOO_SOCKET_IFNAME" not in found


def test_a_worker_that_fails_fails_the_stage(one_process: Path) -> None:
    (one_process / "broken.py").write_text("raise SystemExit(3)")
    with pytest.raises(LaunchError, match="broken failed under one"):
        launch("one", "broken", [])


# A worker that begins to train and is then stopped, as by a debugger or a machine that hangs.
STOPPED = """
import os, signal, sys
from pathlib import Path
from tasks.train.run import heartbeat
heartbeat.begin(Path("."), 0)
heartbeat.note("training", 1, 10)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_worker_that_is_stopped_is_noticed_and_ended(one_process: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process does not act on SIGTERM; it is killed."""
    (one_process / "stopped.py").write_text(STOPPED)
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr("tasks.train.run.launch.GRACE_SECONDS", 0.5)
    with pytest.raises(LaunchError, match="process 0 has given no sign of life for"):
        launch("one", "stopped", [], heartbeat.Watch(one_process).look)
    assert wait_until_gone([heartbeat.read(one_process)[0]["pid"]]) == []
