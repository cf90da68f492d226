"""Two machines (here: two launchers on the loopback address) that find each other by environment variables."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tasks.train.run.launch import launch

# Each process adds up the ranks of all of them, and leaves the sum.
WORKER = """
import torch, torch.distributed as dist
from pathlib import Path
dist.init_process_group("gloo")
total = torch.tensor(float(dist.get_rank() + 1))
dist.all_reduce(total)
Path(f"rank{dist.get_rank()}").write_text(f"{dist.get_world_size()} {total.item()}")
dist.barrier()
"""


@pytest.fixture
def machines(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared checkout, and the environment that both machines have in common."""
    (tmp_path / "infra/accelerate").mkdir(parents=True)
    shutil.copytree(root / "infra/deepspeed", tmp_path / "infra/deepspeed")
    launch_file = (root / "infra/accelerate/kubernetes.yaml").read_text()
    for gpu, cpu in (
        ("use_cpu: false", "use_cpu: true"),
        ("gpu_zero3", "cpu_zero2"),
        ("  zero3_init_flag: true\n", ""),
    ):
        assert gpu in launch_file
        launch_file = launch_file.replace(gpu, cpu)
    (tmp_path / "infra/accelerate/nodes.yaml").write_text(launch_file)
    (tmp_path / "joined.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    for name, value in {**place, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(rank: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.train.run.follow"],
        env={**os.environ, "PET_NODE_RANK": str(rank)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_first_machine_does_not_follow(machines: Path) -> None:
    said, _ = follow(0).communicate(timeout=200)
    assert "the first one runs the stages" in said


@pytest.mark.slow
def test_a_machine_that_follows_joins_what_the_first_launches(machines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 + 2, in both processes; then the follower waits for the next launch, and ends when it is told to."""
    monkeypatch.setenv("PET_NODE_RANK", "0")
    follower = follow(1)
    try:
        launch("nodes", "joined", [])
        assert [(machines / f"rank{rank}").read_text() for rank in (0, 1)] == ["2 3.0", "2 3.0"]
        assert not (machines / ".flywheel/launch.json").exists()
        assert follower.poll() is None
        children = psutil.Process(follower.pid).children(recursive=True)
    finally:
        follower.send_signal(signal.SIGTERM)
    said, _ = follower.communicate(timeout=200)
    assert said.startswith("follow: joining joined under nodes\n"), said
    assert psutil.wait_procs(children, timeout=60)[1] == []
