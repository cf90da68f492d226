"""Nothing that the guard runs outlives it, whoever dies first."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tasks.engine.process import GUARD

# A leader with one child that ignores SIGTERM and is left behind by a leader that ends.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def start(grace: float = 0.5) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """The guard, and the leader and child below it, the child deaf to SIGTERM by now."""
    command = [sys.executable, "-I", str(GUARD), str(grace), sys.executable, "-c", FAMILY]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert guard.stdout is not None
    lines = [guard.stdout.readline().split(), guard.stdout.readline().split()]
    return guard, [psutil.Process(int(number)) for line in lines if line != ["up"] for number in line]


def left(processes: list[psutil.Process]) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=60)[1]


def test_a_killed_leader_takes_its_children_along_and_its_status_is_told() -> None:
    guard, family = start()
    family[0].send_signal(signal.SIGKILL)
    assert guard.wait(60) == 128 + signal.SIGKILL
    assert left(family) == []


def test_closing_our_end_of_its_input_ends_all() -> None:
    guard, family = start()
    assert guard.stdin is not None
    guard.stdin.close()
    assert guard.wait(60) == 143
    assert left(family) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_the_deaf_ones_too(number: signal.Signals) -> None:
    guard, family = start()
    guard.send_signal(number)
    assert guard.wait(60) == 143
    assert left(family) == []


def test_a_killed_guard_takes_the_leader_along() -> None:
    guard, family = start()
    guard.kill()
    guard.wait(60)
    assert left(family[:1]) == []
    family[1].kill()


def test_the_status_of_a_command_that_ends_by_itself_is_ours() -> None:
    command = [sys.executable, "-I", str(GUARD), "30", sys.executable, "-c", "raise SystemExit(3)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as guard:
        assert guard.wait(60) == 3
