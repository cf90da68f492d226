"""Run one command so that nothing it started outlives it, or the process that asked for it.

torchrun puts workers in sessions of their own. This small parent adopts orphans (Linux's child subreaper) and ends what
is below it: on SIGTERM or SIGINT, when the caller's end of our standard input closes (it died, even by kill -9), and
when the command has ended. Standard library only. Elsewhere than on Linux only the command's process group is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOPPED = 128 + signal.SIGTERM

_stop_asked = False


def _ask_stop(_signal: int, _frame: FrameType | None) -> None:
    global _stop_asked
    _stop_asked = True


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _parents() -> dict[int, int]:
    """Process id → parent's id, zombies included: one whose first thread has ended may have others that live."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return parents


def descendants(root: int) -> list[int]:
    """Every process below `root`, nearest first; empty where there is no /proc."""
    parents = _parents()
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found[1:]


def end_all(group: int, grace: float) -> None:
    """SIGTERM once to everything below us, then SIGKILL after `grace` seconds, until we have no child.

    A look at /proc may miss the child of one that ends meanwhile, so it only says whom to signal.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGTERM)
    told = {group}
    deadline = time.monotonic() + grace
    while not _all_reaped():
        living = descendants(os.getpid())
        late = time.monotonic() > deadline
        for process in [one for one in living if late or one not in told]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL if late else signal.SIGTERM)
        told.update(living)
        if time.monotonic() > deadline + 10:
            break
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _all_reaped() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _caller_gone() -> bool:
    """Whether the caller's end of our standard input is closed. Waits up to a tenth of a second."""
    readable, _, _ = select.select([0], [], [], 0.1)
    return bool(readable) and os.read(0, 4096) == b""


def main(arguments: list[str]) -> int:
    """`supervise.py GRACE COMMAND…`: returns the command's exit status, or 143 when it was stopped."""
    grace, command = float(arguments[0]), arguments[1:]
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _ask_stop)
    dies_with_us = functools.partial(_prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=dies_with_us)
    while child.poll() is None and not _stop_asked:
        if _caller_gone():
            break
    status = child.poll()
    end_all(child.pid, grace)
    if status is None:
        return STOPPED
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
