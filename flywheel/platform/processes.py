"""The platform's processes: asked of supervisord, found by their marker, ended to the last.

Every process of the platform carries FLYWHEEL_PLATFORM=<root> in its environment, and children inherit it. So strays
can be found although supervisord was killed. Linux and psutil; processes of other users are not seen.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, ServerProxy

import psutil

from flywheel.platform.platform import CONFIG, MARKER, Platform
from tasks.core import layout
from tasks.core.errors import FlywheelError

STOP_SECONDS = 60.0


class PlatformFailed(FlywheelError):
    """The platform, or a part of it, cannot be started or stopped; the message says what and why."""


def supervisor(platform: Platform) -> Any:
    """supervisord's own calls, by name. Each can raise what `LOST` names."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{platform.socket}")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor


LOST = (OSError, HTTPException, Error)


def states(platform: Platform) -> dict[str, dict[str, Any]] | None:
    """Service → what supervisord says of it (statename, pid, spawnerr, …); None if supervisord is not running."""
    if not platform.socket.exists():
        return None
    try:
        return {row["name"]: row for row in supervisor(platform).getAllProcessInfo()}
    except LOST:
        return None


def start_supervisor(platform: Platform) -> None:
    """Start supervisord in the background, and wait until it takes orders.

    Raises:
        PlatformFailed: it did not come up; the message carries its own words.
    """
    platform.state.mkdir(parents=True, exist_ok=True)
    platform.state.chmod(0o700)
    (platform.root / layout.CACHE / "hub").mkdir(parents=True, exist_ok=True)
    platform.socket.unlink(missing_ok=True)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(platform.root / CONFIG)]
    done = subprocess.run(
        command, cwd=platform.root, env=platform.environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while done.returncode == 0 and time.monotonic() < deadline:
        if states(platform) is not None:
            return
        time.sleep(0.1)
    said = (done.stderr or done.stdout).strip() or last_lines(platform.state / "supervisord.log")
    raise PlatformFailed(f"supervisord did not start: {said}")


def stop_supervisor(platform: Platform) -> None:
    """Ask supervisord to end its services and itself, and wait for it. No supervisord, nothing to do."""
    if states(platform) is None:
        return
    pid = 0
    with contextlib.suppress(*LOST):
        pid = int(supervisor(platform).getPID())
        supervisor(platform).shutdown()
    with contextlib.suppress(psutil.Error):
        psutil.Process(pid).wait(STOP_SECONDS)


def marked(root: Path) -> list[psutil.Process]:
    """Living processes of this root's platform, with all their descendants; never this process or its ancestors."""
    us = psutil.Process()
    spared = {us.pid, *(parent.pid for parent in us.parents())}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid not in spared and process.environ().get(MARKER) == str(root):
                family = [process, *process.children(recursive=True)]
                found.update({one.pid: one for one in family if one.pid not in spared})
    return [process for process in found.values() if _alive(process)]


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def end_marked(root: Path, grace: float = 15.0) -> int:
    """SIGTERM, then SIGKILL after `grace` seconds, until no marked process is left; returns how many there were.

    Raises:
        PlatformFailed: one does not end.
    """
    ended: set[int] = set()
    for _ in range(5):
        living = marked(root)
        if not living:
            return len(ended)
        ended.update(process.pid for process in living)
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, stubborn = psutil.wait_procs(living, timeout=grace)
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(stubborn, timeout=grace)
    left = ", ".join(describe(process) for process in marked(root))
    raise PlatformFailed(f"these processes do not end: {left}. End them by hand")


def describe(process: psutil.Process) -> str:
    """A process for people: its id and the beginning of its command."""
    try:
        return f"process {process.pid} ({' '.join(process.cmdline())[:100] or process.name()})"
    except psutil.Error:
        return f"process {process.pid}"


def holder(host: str, port: int) -> str:
    """Who holds a port, in words; "" if it can be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return ""
        except OSError as error:
            reason = error.strerror or str(error)
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return describe(psutil.Process(connection.pid))
    return f"a process that cannot be seen ({reason})"


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log, for an error message."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 20_000))
            lines = stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-count:]) or "(its log is empty)"
