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
from tasks.train.run.launch import LaunchError, _watched, environment, launch, owned, read_launch

# A stage that owns a child with a child of its own, and says their process ids.
STAGE = """
import sys
from tasks.train.run.launch import owned
with owned(["sh", "-c", "sleep 300 & echo $$ $!; wait"], None) as child:
    child.wait()
"""

# A parent whose child, in a session of its own, ties itself to it.
TIED = """
import os, subprocess, sys, time
code = '''
import sys, time
from tasks.train.run.launch import die_with
die_with(int(sys.argv[1]))
print("tied", flush=True)
time.sleep(300)
'''
child = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], start_new_session=True)
print(child.pid, flush=True)
time.sleep(300)
"""


def start(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_until_gone(pids: list[int], seconds: float = 60.0) -> list[int]:
    """The process ids that still run after at most that many seconds."""
    end = time.monotonic() + seconds
    left = pids
    while left and time.monotonic() < end:
        left = [pid for pid in left if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
        time.sleep(0.05)
    return left


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_stage_ends_its_whole_group(number: signal.Signals) -> None:
    stage = start(STAGE)
    assert stage.stdout is not None
    pids = [int(pid) for pid in stage.stdout.readline().split()]
    stage.send_signal(number)
    assert stage.wait(timeout=60) == 128 + number
    assert wait_until_gone(pids) == []


def test_a_killed_parent_takes_its_tied_child_along() -> None:
    parent = start(TIED)
    assert parent.stdout is not None
    lines = [parent.stdout.readline().strip(), parent.stdout.readline().strip()]
    [pid] = [int(line) for line in lines if line != "tied"]
    parent.kill()
    parent.wait()
    assert wait_until_gone([pid]) == []


def test_a_child_whose_parent_is_dead_already_ends_at_once() -> None:
    code = "from tasks.train.run.launch import die_with; die_with(1); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert os.getpid() != 1 and done.returncode == 1 and done.stdout == ""


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


def test_a_worker_that_fails_fails_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    (tmp_path / "infra/accelerate").mkdir(parents=True)
    (tmp_path / "infra/accelerate/one.yaml").write_text("distributed_type: 'NO'\nnum_processes: 1\nuse_cpu: true\n")
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    with pytest.raises(LaunchError, match="broken failed under one"):
        launch("one", "broken", [])


# A worker that begins to train and is then stopped, as by a debugger or a machine that hangs.
STOPPED = """
import os, signal, sys
from pathlib import Path
from tasks.train.run import heartbeat
heartbeat.begin(Path(sys.argv[1]), 0)
heartbeat.note("training", 1, 10)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_worker_that_is_stopped_is_noticed_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process does not act on SIGTERM; it is killed."""
    monkeypatch.setattr(heartbeat, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr("tasks.train.run.launch.GRACE_SECONDS", 0.5)
    watch = heartbeat.Watch(tmp_path)
    with owned([sys.executable, "-c", STOPPED, str(tmp_path)], None) as child:
        reason = _watched(child, watch.look)
        assert psutil.Process(child.pid).status() == psutil.STATUS_STOPPED
    assert reason is not None and reason.startswith("process 0 has given no sign of life for")
    assert child.returncode == -signal.SIGKILL
