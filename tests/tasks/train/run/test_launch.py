"""Launching: the children's environment, no child outlives the stage; several machines by environment variables."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.train.run import heartbeat
from tasks.train.run.launch import (
    ANNOUNCEMENT,
    LaunchError,
    NodesUnknown,
    announced,
    announcement,
    environment,
    launch,
    launch_command,
    read_launch,
    this_node,
)

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


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != "zombie"
    except psutil.NoSuchProcess:  # it may end while we look
        return False


def wait_until_gone(pids: list[int], seconds: float = 60.0) -> list[int]:
    """The process ids that still run after at most that many seconds."""
    end = time.monotonic() + seconds
    while (left := list(filter(alive, pids))) and time.monotonic() < end:
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


@pytest.mark.parametrize(
    ("seen", "name", "processes"), [("0 1 2", "gpu8", 3), ("", "gpu8", 8), ("0 1", "gpu1", 1), ("0 1 2", "cpu", 2)]
)
def test_a_launch_starts_no_more_processes_than_the_machine_has_gpus(
    seen: str, name: str, processes: int, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no GPU is seen the file stands as it is: it may be planned here for another machine."""
    monkeypatch.chdir(root)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '%s\\n' {seen}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    settings = read_launch(name)
    command = launch_command(name, settings, "module", [])
    assert command[command.index("--num_processes") + 1] == str(settings["num_processes"]) == str(processes)


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


PLACE = {"PET_NNODES": "3", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "training-0", "PET_MASTER_PORT": "29500"}


@pytest.fixture
def placed(root: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(root)
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PET_NPROC_PER_NODE", raising=False)
    return monkeypatch


def test_without_the_variables_there_is_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PET_NNODES", raising=False)
    assert this_node() is None


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("PET_NODE_RANK", "3", "PET_NODE_RANK is 3 of 3 machines; they count from 0"),
        ("PET_MASTER_PORT", "http", "PET_MASTER_PORT is missing or wrong"),
        ("PET_MASTER_ADDR", None, "'PET_MASTER_ADDR' of"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(
    placed: pytest.MonkeyPatch, name: str, value: str | None, message: str
) -> None:
    placed.delenv(name) if value is None else placed.setenv(name, value)
    with pytest.raises(NodesUnknown, match=re.escape(message)):
        this_node()


def test_the_environment_says_how_many_processes_there_are(placed: pytest.MonkeyPatch) -> None:
    """Three machines of eight as the file says, or of four as the environment says."""
    found = read_launch("kubernetes")
    assert (found["num_machines"], found["num_processes"]) == (3, 24)
    placed.setenv("PET_NPROC_PER_NODE", "4")
    assert read_launch("kubernetes")["num_processes"] == 12


def test_other_launches_are_as_their_files_say(placed: pytest.MonkeyPatch) -> None:
    assert read_launch("gpu8")["num_processes"] == 8
    assert "--machine_rank" not in launch_command("gpu8", read_launch("gpu8"), "m", [])


def test_accelerate_is_told_the_place_and_understands_it(placed: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = launch_command("kubernetes", read_launch("kubernetes"), "tasks.train.sft.worker", ["job", "run"])
    told = command[command.index("--config_file") :]
    found, _, _ = _validate_launch_command(launch_command_parser().parse_args(told))
    assert (found.num_machines, found.num_processes, found.machine_rank) == (3, 24, 1)
    assert (found.main_process_ip, int(found.main_process_port)) == ("training-0", 29500)
    assert found.deepspeed_multinode_launcher == "standard" and found.training_script_args == ["job", "run"]


def test_a_launch_by_environment_needs_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    monkeypatch.delenv("PET_NNODES", raising=False)
    with pytest.raises(NodesUnknown, match="needs PET_NNODES"):
        launch_command("kubernetes", read_launch("kubernetes"), "m", [])


def test_the_first_machine_tells_the_others_what_to_join_for_as_long_as_it_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    settings = read_launch("kubernetes")
    monkeypatch.chdir(tmp_path)
    seen = []
    for _ in range(2):
        with announced(settings, "kubernetes", "worker", ["job"]):
            seen.append(json.loads(ANNOUNCEMENT.read_text()))
            assert announcement() == seen[-1]
        assert announcement() is None
    assert [(news["launch"], news["module"], news["arguments"]) for news in seen] == [
        ("kubernetes", "worker", ["job"])
    ] * 2
    assert seen[0]["id"] != seen[1]["id"]
