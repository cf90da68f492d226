"""The supervisor leaves nothing behind, however a run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tasks.core.processes import SUPERVISOR

# A command whose worker has a session of its own and ignores SIGTERM, as torchrun's do; it prints the worker's pid and
# then does what it is told.
STUBBORN = """
import signal, subprocess, sys, time
code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(300)"
worker = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
worker.stdout.readline()
print(worker.pid, flush=True)
exec(sys.argv[1])
"""


def supervise(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(SUPERVISOR), "0.5", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def is_gone(process: int, within: float = 60.0) -> bool:
    deadline = time.monotonic() + within
    while psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def worker_of(supervisor: subprocess.Popen[str]) -> int:
    assert supervisor.stdout is not None
    return int(supervisor.stdout.readline())


def test_the_exit_status_is_the_commands_own() -> None:
    assert supervise(sys.executable, "-c", "raise SystemExit(7)").wait(60) == 7


def test_a_command_killed_by_a_signal_gives_128_and_its_number() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert supervise(sys.executable, "-c", code).wait(60) == 128 + signal.SIGKILL


def test_stopping_ends_a_worker_in_another_session_that_ignores_sigterm() -> None:
    supervisor = supervise(sys.executable, "-c", STUBBORN, "time.sleep(300)")
    worker = worker_of(supervisor)
    supervisor.terminate()
    assert supervisor.wait(60) == 143
    assert is_gone(worker, within=0.5)


def test_stopping_ends_the_worker_of_a_command_whose_first_thread_has_ended() -> None:
    """The command counts as a zombie while its other thread lives, and is its worker's parent all the same."""
    headless = "import ctypes, threading; threading.Thread(target=time.sleep, args=[300]).start()"
    headless += "; signal.signal(signal.SIGTERM, signal.SIG_IGN); ctypes.CDLL(None).pthread_exit(None)"
    supervisor = supervise(sys.executable, "-c", STUBBORN, headless)
    worker = worker_of(supervisor)
    status = Path(f"/proc/{psutil.Process(worker).ppid()}/status")
    while "State:\tZ" not in status.read_text():
        time.sleep(0.01)
    supervisor.terminate()
    assert supervisor.wait(60) == 143
    assert is_gone(worker, within=0.5)


def test_a_caller_that_dies_takes_the_whole_family_with_it() -> None:
    """kill -9 of the caller closes its end of the pipe; so does closing it here."""
    supervisor = supervise(sys.executable, "-c", STUBBORN, "time.sleep(300)")
    worker = worker_of(supervisor)
    assert supervisor.stdin is not None
    supervisor.stdin.close()
    assert supervisor.wait(60) == 143
    assert is_gone(worker, within=0.5)


def test_what_a_command_leaves_running_is_ended_after_it() -> None:
    supervisor = supervise(sys.executable, "-c", STUBBORN, "")
    worker = worker_of(supervisor)
    assert supervisor.wait(60) == 0
    assert is_gone(worker, within=0.5)


def test_a_supervisor_that_is_killed_takes_the_command_with_it(tmp_path: Path) -> None:
    supervisor = supervise(sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(300)")
    command = worker_of(supervisor)
    os.kill(supervisor.pid, signal.SIGKILL)
    supervisor.wait(60)
    if sys.platform != "linux":
        pytest.skip("only Linux can tie a process's life to its parent's")
    assert is_gone(command)
