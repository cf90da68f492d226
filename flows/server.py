"""A real Prefect server for one run: on a free loopback port, with its database under .flywheel/prefect.

Used where PREFECT_API_URL is not set. It runs under tasks/core/supervise.py, so it ends with this process, however
that ends.
It takes 11 to 20 s to answer on two cores; Prefect's own temporary server times out on a busy machine.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import IO, Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.processes import free_port, start, stop

START_SECONDS = 180.0


class ServerFailed(FlywheelError):
    """The embedded Prefect server did not answer in time; the message says where its log is."""


def prefect_environment(home: Path) -> dict[str, str]:
    """Settings for an embedded server and its clients: everything under `home`/.flywheel/prefect, nothing calls out."""
    folder = (home / layout.HOME / "prefect").absolute()
    return {
        **layout.OFFLINE,
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }


def is_healthy(api: str) -> bool:
    """Whether the API at this address answers its health check."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{api}/health", timeout=3) as reply:  # noqa: S310 - our own
        return bool(reply.status == 200)
    return False


class EmbeddedServer:
    """A server of our own. It starts when the block is entered; `wait` returns once it answers."""

    def __init__(self, home: Path, services: bool = False) -> None:
        """`services` also runs the scheduler and its like, which only deployments need."""
        self.log = home / layout.LOGS / "prefect-server.log"
        port = free_port()
        self.api = f"http://127.0.0.1:{port}/api"
        self._home, self._port, self._services = home, port, services
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EmbeddedServer:
        """Start it, without waiting."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as stream:
            self._process = _start(self._home, self._port, stream, self._services)
        return self

    def wait(self) -> None:
        """Return once the server answers.

        Raises:
            ServerFailed: it ended, or did not answer within three minutes.
        """
        deadline = time.monotonic() + START_SECONDS
        while not is_healthy(self.api):
            if self._process is None or self._process.poll() is not None:
                raise ServerFailed(f"the Prefect server ended while starting; its log: {self.log}")
            if time.monotonic() > deadline:
                raise ServerFailed(
                    f"the Prefect server did not answer within {START_SECONDS:.0f} s; its log: {self.log}"
                )
            time.sleep(0.2)

    def __exit__(self, *_: Any) -> None:
        """End it with all it started."""
        if self._process is not None:
            stop(self._process)


def _start(home: Path, port: int, log: IO[bytes], services: bool) -> subprocess.Popen[bytes]:
    """The server as a child. Without services the task-run recorder still runs: the page needs it."""
    environment = {**os.environ, **prefect_environment(home), "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}
    environment.pop("PREFECT_API_URL", None)
    environment.pop("PREFECT_API_DATABASE_CONNECTION_URL", None)
    Path(environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-P", "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    if not services:
        environment |= {
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
        }
    return start(command, grace=5, cwd=home, env=environment, out=log)
