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

    Its processes get `grace` seconds to end by themselves after SIGTERM. `out` is where output and errors go: a file,
    subprocess.PIPE, or None for ours. With `outlives_us` it goes on when we end, until its supervisor gets SIGTERM.
    """
    arguments = [sys.executable, "-I", str(SUPERVISOR), str(grace), *command]
    errors = None if out is None else subprocess.STDOUT
    # One that outlives us holds both ends of its supervisor's standard input, so that it never closes.
    pipe = os.pipe() if outlives_us else ()
    try:
        return subprocess.Popen(
            arguments,
            cwd=cwd,
            env=env,
            stdin=pipe[0] if pipe else subprocess.PIPE,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            pass_fds=pipe[1:],
        )
    finally:
        for end in pipe:
            os.close(end)


def stop(process: subprocess.Popen[bytes], patience: float | None = None) -> int:
    """End what `start` began, with all its family, by force after `patience` seconds; returns its exit status."""
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
