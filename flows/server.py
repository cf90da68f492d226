"""A real Prefect server for one run, on a free loopback port with its database under .flywheel; and asking servers.

Used where PREFECT_API_URL is not set. It ends with this process, however that ends (tasks/core/supervise.py). It takes
11 to 20 s to answer on two cores; Prefect's own temporary server times out on a busy machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import httpx

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.processes import LOOPBACK, free_port, is_local, start, stop

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
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",  # it covers the button that submits a form
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    }


class EmbeddedServer:
    """A server of our own. It starts when the block is entered; `wait` returns once it answers."""

    def __init__(self, home: Path) -> None:
        self.log = home / layout.LOGS / "prefect-server.log"
        port = free_port()
        self.api = f"http://{LOOPBACK}:{port}/api"
        self._home, self._port = home, port
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EmbeddedServer:
        """Start it, without waiting."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as stream:
            self._process = self._start(stream)
        return self

    def wait(self) -> None:
        """Return once the server answers.

        Raises:
            ServerFailed: it ended, or did not answer within three minutes.
        """
        deadline = time.monotonic() + START_SECONDS
        while not answers(f"{self.api}/health"):
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

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """The server as a child, without what only deployments need; the task-run recorder runs: the page needs it."""
        environment = {**os.environ, **prefect_environment(self._home), "PREFECT_SERVER_LOGGING_LEVEL": "WARNING"}
        for name in ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL"):
            environment.pop(name, None)
        Path(environment["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
        for name in ("SCHEDULER", "LATE_RUNS"):
            environment[f"PREFECT_SERVER_SERVICES_{name}_ENABLED"] = "false"
        where = ["--host", LOOPBACK, "--port", str(self._port)]
        command = [sys.executable, "-P", "-m", "prefect", "server", "start", *where]
        return start(command, grace=5, cwd=self._home, env=environment, out=log)


def fetch(url: str, body: Any = None, *, key: str = "", ours: bool = False, seconds: float = 5.0) -> httpx.Response:
    """The reply of an address; POST where there is a body.

    Args:
        url: what to ask.
        body: JSON values.
        key: sent as bearer token.
        ours: the server is one of ours, also where it listens on another address than the loopback.
        seconds: patience.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    near = ours or is_local(urlsplit(url).hostname)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(verify=not near, trust_env=not near, timeout=seconds, follow_redirects=True) as client:
        return client.request("GET" if body is None else "POST", url, json=body, headers=headers)


def answers(url: str, *, ours: bool = False) -> bool:
    """Whether an address answers with success."""
    try:
        return fetch(url, ours=ours, seconds=3.0).is_success
    except httpx.HTTPError:
        return False
