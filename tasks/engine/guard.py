"""Runs one command so that none of its processes outlives it, or us: `guard.py GRACE COMMAND...`.

vLLM is three processes; when the first is killed outright the others are orphans that hold memory and port. Here the
command gets a process group of its own, which is ended when the command ends, when we are told to stop, and when the
other end of our standard input closes, which it does however our parent dies. Orphans become our children (Linux), so
that we can tell when all are gone.

Standard library only, started by its path with `python -I`, so that it is up at once in any environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

SET_PARENT_DEATH_SIGNAL = 1
SET_CHILD_SUBREAPER = 36
# Seconds between two looks at the command.
PAUSE = 0.1
STOPPED = 128 + signal.SIGTERM


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_guard() -> None:
    _prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _reap() -> None:
    """Collect what ended, so that a group of dead processes counts as gone."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _signal_group(group: int, number: int) -> bool:
    """Whether there was anybody left to signal; number 0 only asks."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def end_group(group: int, grace: float) -> None:
    """SIGTERM, then after `grace` seconds SIGKILL, until nothing of the group is left."""
    _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while time.monotonic() < deadline:
        _reap()
        if not _signal_group(group, 0):
            return
        time.sleep(PAUSE)
    _signal_group(group, signal.SIGKILL)
    while _signal_group(group, 0) and time.monotonic() < deadline + grace:
        _reap()
        time.sleep(PAUSE)


def _parent_gone() -> bool:
    readable, _, _ = select.select([0], [], [], PAUSE)
    return bool(readable) and os.read(0, 4096) == b""


def main(arguments: list[str]) -> int:
    """Returns the command's exit status (128 + signal where one killed it), or 143 if it was stopped."""
    grace, command = float(arguments[0]), arguments[1:]
    stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: stop.append(number))
    _prctl(SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_die_with_guard)
    while child.poll() is None and not stop and not _parent_gone():
        pass
    status = child.poll()
    end_group(child.pid, grace if status is None else 0.0)
    if status is None:
        return STOPPED
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
