"""Child processes that nothing outlives: started, asked to stop, and ended with all they started, however we end.

The one supervisor is supervise.py, a small parent between us and the command.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import IO

SUPERVISOR = Path(__file__).with_name("supervise.py")
LOOPBACK = "127.0.0.1"
Output = int | IO[bytes] | None


def start(
    command: list[str],
    *,
    grace: float,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    out: Output = None,
    outlives_us: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a command whose whole family ends with it, with `stop`, and with us, even by kill -9.

    Args:
        command: what to run.
        grace: seconds that its processes get to end by themselves after SIGTERM.
        cwd: where it runs.
        env: its environment; None for ours.
        out: where its output and errors go: a file, subprocess.PIPE, or None for ours.
        outlives_us: it goes on in the background when we end; SIGTERM to the supervisor ends it.
    """
    arguments = [sys.executable, "-I", str(SUPERVISOR), str(grace), *command]
    errors = None if out is None else subprocess.STDOUT
    if not outlives_us:
        return subprocess.Popen(
            arguments, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=out, stderr=errors, start_new_session=True
        )
    ours, end = os.pipe()  # the supervisor holds both ends of its standard input, so that it never closes
    try:
        return subprocess.Popen(
            arguments, cwd=cwd, env=env, stdin=ours, stdout=out, stderr=errors, start_new_session=True, pass_fds=(end,)
        )
    finally:
        os.close(ours)
        os.close(end)


def stop(process: subprocess.Popen[bytes], patience: float | None = None) -> int:
    """End what `start` began, with all its family; returns its exit status. Again is no change.

    Args:
        process: what `start` returned.
        patience: seconds after which the supervisor itself is killed; None waits for it however long.
    """
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        process.kill()
    if process.stdout is not None:
        process.stdout.close()
    return process.wait()


def is_local(host: str | None) -> bool:
    """Whether a host is this machine's loopback address."""
    return host in (LOOPBACK, "::1", "localhost")


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
