"""What the platform consists of: services, addresses, environment. params.yaml and three variables decide.

MLFLOW_TRACKING_URI or PREFECT_API_URL naming a server elsewhere, and engine.kind `url`, take the place of a service of
ours: it is asked whether it is ready, but neither started nor stopped. Everything we start listens on the loopback
address, except the gateway where serving.host says otherwise.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from flows.server import fetch, prefect_environment
from flows.worker import POOL, WORKER
from tasks.core import layout
from tasks.core.params import Params, load_params
from tasks.core.processes import LOOPBACK
from tasks.store.store import database_url

LONGEST_SOCKET = 90  # a Unix socket's path holds 107 bytes, and supervisord appends its process id


@dataclass(frozen=True)
class Service:
    """One part of the platform. `check` returns "" when it is ready, else what it waits for, in words."""

    name: str
    address: str
    check: Callable[[], str]
    seconds: float
    port: int | None
    after: tuple[str, ...] = ()
    ours: bool = True


@dataclass(frozen=True)
class Platform:
    """The platform of one checkout."""

    root: Path
    params: Params

    @property
    def state(self) -> Path:
        """Logs and the record of what was started."""
        return self.root / layout.PLATFORM_UP.parent

    @property
    def socket(self) -> Path:
        """Where supervisord takes orders: in the state folder, unless that path is too long for a Unix socket."""
        path = self.state / "control.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET:
            return path
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"flywheel-{os.getuid()}-{name}.sock"

    @property
    def own_prefect(self) -> str:
        """The API of the Prefect server that we start."""
        return f"http://{LOOPBACK}:{self.params.platform.prefect_port}/api"

    @property
    def own_mlflow(self) -> str:
        """The MLflow server that we start."""
        return f"http://{LOOPBACK}:{self.params.platform.mlflow_port}"

    @property
    def prefect_api(self) -> str:
        """The Prefect API: ours, or the one PREFECT_API_URL names."""
        return _elsewhere("PREFECT_API_URL") or self.own_prefect

    @property
    def mlflow(self) -> str:
        """The MLflow server: ours, or the one MLFLOW_TRACKING_URI names."""
        return _elsewhere("MLFLOW_TRACKING_URI") or self.own_mlflow

    @property
    def engine(self) -> str:
        """The engine's OpenAI-compatible address, ending in /v1."""
        settings = self.params.engine
        return settings.url.rstrip("/") if settings.kind == "url" else f"http://{LOOPBACK}:{settings.port}/v1"

    def services(self, since: str = "") -> list[Service]:
        """All services in the order they are started; a worker counts only with a sign of life after `since`."""
        engine, ports, serving = self.params.engine, self.params.platform, self.params.serving
        prefect, mlflow, gateway = self.prefect_api, self.mlflow, serving.address
        elsewhere = engine.kind == "url"
        asked = f"{self.engine}/models" if elsewhere else f"{self.engine.removesuffix('/v1')}/health"
        key = os.environ.get("FLYWHEEL_ENGINE_KEY", "") if elsewhere else ""
        late = engine.start_seconds + 30  # after its own limit it says itself what went wrong
        own_prefect, own_mlflow = prefect == self.own_prefect, mlflow == self.own_mlflow
        ready = partial(problem, f"{gateway}/readyz", ours=True)  # once the engine is
        shown, up = prefect.removesuffix("/api"), partial(problem, f"{prefect}/health")
        return [
            Service("prefect", shown, up, 180, ports.prefect_port, ours=own_prefect),
            Service("mlflow", mlflow, partial(problem, f"{mlflow}/health"), 240, ports.mlflow_port, ours=own_mlflow),
            Service("engine", self.engine, partial(problem, asked, key), late, engine.port, ours=not elsewhere),
            Service("worker", f"pool {POOL}", partial(self._worker, since), 180, None, ("prefect",)),
            Service("gateway", gateway, ready, late + 210, serving.port, ("mlflow",)),
        ]

    def _worker(self, since: str) -> str:
        found = ask(f"{self.prefect_api}/work_pools/{POOL}/workers/filter", {})
        for worker in found if isinstance(found, list) else []:
            if worker["name"] == WORKER and worker["status"] == "ONLINE" and worker["last_heartbeat_time"] >= since:
                return ""
        return "no sign of life from the worker yet"

    def environment(self) -> dict[str, str]:
        """What every child process gets: offline, and told where everything is."""
        store = f"sqlite:///{self.root / layout.HOME / 'mlflow' / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        near = ",".join(filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1,localhost"]))
        return {
            **layout.child_environment(),
            "NO_PROXY": near,  # no proxy stands between our own services
            "no_proxy": near,
            **prefect_environment(self.root),
            # An empty cache of models: none of this user's is picked up, and `transformers serve` lists what is there.
            "HF_HUB_CACHE": str(self.root / layout.CACHE / "hub"),
            "PREFECT_API_URL": self.prefect_api,
            # Leases on disk: a server that was killed still knows which run holds a deployment's only slot.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "FLYWHEEL_ROOT": str(self.root),
            "FLYWHEEL_DATABASE_URL": database_url(home=self.root).render_as_string(hide_password=False),
            "FLYWHEEL_ENGINE_URL": self.engine,
            "FLYWHEEL_PYTHON": sys.executable,
            "FLYWHEEL_PREFECT_PORT": str(self.params.platform.prefect_port),
            "FLYWHEEL_MLFLOW_PORT": str(self.params.platform.mlflow_port),
            "FLYWHEEL_MLFLOW_STORE": store if _elsewhere("MLFLOW_TRACKING_URI") or not uri else uri,
            "FLYWHEEL_MLFLOW_ARTIFACTS": (self.root / layout.HOME / "mlflow" / "artifacts").as_uri(),
            "FLYWHEEL_PLATFORM_STATE": str(self.state),
            "FLYWHEEL_PLATFORM_SOCKET": str(self.socket),
        }


def load(root: Path) -> Platform:
    """The platform that params.yaml in `root` describes.

    Raises:
        SettingsError: params.yaml is wrong.
    """
    return Platform(root, load_params(root / layout.PARAMS))


def _elsewhere(variable: str) -> str:
    """The server that a variable names, or ""."""
    value = os.environ.get(variable, "").rstrip("/")
    return value if value.startswith(("http://", "https://")) else ""


def problem(url: str, key: str = "", ours: bool = False) -> str:
    """Why an address does not answer with success, in a few words; nothing if it does."""
    try:
        reply = fetch(url, key=key, ours=ours)
    except httpx.ConnectError:
        return "does not answer yet"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"does not answer ({error})"
    return "" if reply.is_success else f"answers {reply.status_code}{_reasons(reply)}"


def _reasons(reply: httpx.Response) -> str:
    """What a readiness route says is missing, cut to one line."""
    try:
        health = reply.json()
    except ValueError:
        return ""
    problems = health.get("problems", health) if isinstance(health, dict) else health
    if isinstance(problems, dict):
        problems = [f"{name}: {value}" for name, value in problems.items()]
    text = "; ".join(map(str, problems)) if isinstance(problems, list) else str(problems)
    return f" ({text[:200]})" if text else ""


def ask(url: str, body: Any = None, ours: bool = False) -> Any:
    """The JSON that an address answers (POST where there is a body), or None where it does not."""
    try:
        reply = fetch(url, body, ours=ours)
        return reply.json() if reply.is_success else None
    except (httpx.HTTPError, ValueError):
        return None
