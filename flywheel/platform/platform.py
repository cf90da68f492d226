"""What the platform consists of: services, addresses, environment. params.yaml and three variables decide.

MLFLOW_TRACKING_URI or PREFECT_API_URL naming a server elsewhere, and engine.kind `url`, take the place of a service of
ours: it is asked whether it is ready, but neither started nor stopped. Everything we start listens on the loopback
address, except the gateway where serving.host says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.dead_runs import POOL
from flows.server import prefect_environment
from flows.worker import WORKER
from tasks.core import layout
from tasks.core.params import Params

MARKER = "FLYWHEEL_PLATFORM"
STATE = layout.HOME / "platform"
CONFIG = Path("infra/supervisor/platform.conf")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
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
        """Pid file, logs and the record of what was started."""
        return self.root / STATE

    @property
    def socket(self) -> Path:
        """Where supervisord takes orders: in the state folder, unless that path is too long for a Unix socket."""
        path = self.state / "control.sock"
        if len(os.fsencode(path)) <= LONGEST_SOCKET:
            return path
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"flywheel-{os.getuid()}-{name}.sock"

    @property
    def _own_prefect(self) -> str:
        return f"http://127.0.0.1:{self.params.platform.prefect_port}/api"

    @property
    def _own_mlflow(self) -> str:
        return f"http://127.0.0.1:{self.params.platform.mlflow_port}"

    @property
    def prefect_api(self) -> str:
        """The Prefect API: ours, or the one PREFECT_API_URL names."""
        return _elsewhere("PREFECT_API_URL", self._own_prefect)

    @property
    def mlflow(self) -> str:
        """The MLflow server: ours, or the one MLFLOW_TRACKING_URI names."""
        return _elsewhere("MLFLOW_TRACKING_URI", self._own_mlflow)

    @property
    def engine(self) -> str:
        """The engine's OpenAI-compatible address, ending in /v1."""
        settings = self.params.engine
        return settings.url.rstrip("/") if settings.kind == "url" else f"http://127.0.0.1:{settings.port}/v1"

    @property
    def gateway(self) -> str:
        """The gateway and the chat page, as seen from this machine."""
        settings = self.params.serving
        host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
        return f"{'https' if settings.tls_certificate else 'http'}://{host}:{settings.port}"

    def services(self, since: str = "") -> list[Service]:
        """All services in the order they are started; a worker counts only with a sign of life after `since`."""
        params = self.params
        return [
            Service(
                "prefect",
                self.prefect_api.removesuffix("/api"),
                lambda: get(f"{self.prefect_api}/health"),
                180,
                params.platform.prefect_port,
                ours=self.prefect_api == self._own_prefect,
            ),
            Service(
                "mlflow",
                self.mlflow,
                lambda: get(f"{self.mlflow}/health"),
                240,
                params.platform.mlflow_port,
                ours=self.mlflow == self._own_mlflow,
            ),
            Service(
                "engine",
                self.engine,
                self._engine,
                params.engine.start_seconds + 30,  # after its own limit it says itself what went wrong
                params.engine.port,
                ours=params.engine.kind != "url",
            ),
            Service("worker", f"pool {POOL}", lambda: self._worker(since), 180, None, after=("prefect",)),
            Service(
                "gateway",
                self.gateway,
                lambda: get(f"{self.gateway}/readyz"),
                params.engine.start_seconds + 240,  # it is ready once the engine is
                params.serving.port,
                after=("mlflow",),
            ),
        ]

    def _engine(self) -> str:
        if self.params.engine.kind == "url":
            return get(f"{self.engine}/models", os.environ.get("FLYWHEEL_ENGINE_KEY", ""))
        return get(f"{self.engine.removesuffix('/v1')}/health")

    def _worker(self, since: str) -> str:
        found = ask(f"{self.prefect_api}/work_pools/{POOL}/workers/filter", {})
        for worker in found if isinstance(found, list) else []:
            if worker["name"] == WORKER and worker["status"] == "ONLINE" and worker["last_heartbeat_time"] >= since:
                return ""
        return "no sign of life from the worker yet"

    def environment(self) -> dict[str, str]:
        """What every child process gets: offline, marked as ours, and told where everything is."""
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
            "FLYWHEEL_DATABASE_URL": database_url(self.root),
            "FLYWHEEL_ENGINE_URL": self.engine,
            "FLYWHEEL_PYTHON": sys.executable,
            "FLYWHEEL_PREFECT_PORT": str(self.params.platform.prefect_port),
            "FLYWHEEL_MLFLOW_PORT": str(self.params.platform.mlflow_port),
            "FLYWHEEL_MLFLOW_STORE": store if not uri or uri == self.mlflow else uri,
            "FLYWHEEL_MLFLOW_ARTIFACTS": (self.root / layout.HOME / "mlflow" / "artifacts").as_uri(),
            "FLYWHEEL_PLATFORM_STATE": str(self.state),
            "FLYWHEEL_PLATFORM_SOCKET": str(self.socket),
            MARKER: str(self.root),
        }


def load(root: Path) -> Platform:
    """The platform that params.yaml in `root` describes.

    Raises:
        SettingsError: params.yaml is wrong.
    """
    from tasks.core.params import load_params

    return Platform(root, load_params(root / layout.PARAMS))


def database_url(root: Path) -> str:
    """FLYWHEEL_DATABASE_URL, or the embedded store of `root`."""
    return os.environ.get("FLYWHEEL_DATABASE_URL") or f"sqlite:///{root / layout.STORE / 'flywheel.db'}"


def _elsewhere(variable: str, own: str) -> str:
    """The server that a variable names, else our own."""
    value = os.environ.get(variable, "").rstrip("/")
    return value if value.startswith(("http://", "https://")) else own


def _open(request: urllib.request.Request) -> Any:
    """Ask an address. On this machine without any proxy, and whatever host our own certificate names."""
    handlers: list[urllib.request.BaseHandler] = []
    if request.host.rpartition(":")[0] in LOOPBACK:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
    return urllib.request.build_opener(*handlers).open(request, timeout=5)


def get(url: str, key: str = "") -> str:
    """Why an address does not answer with 2xx, in a few words; nothing if it does."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with _open(urllib.request.Request(url, headers=headers)):  # noqa: S310 - addresses of our own services
            return ""
    except urllib.error.HTTPError as error:
        return f"answers {error.code}{_reasons(error)}"
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return "does not answer yet" if isinstance(reason, ConnectionRefusedError) else f"does not answer ({reason})"


def _reasons(error: urllib.error.HTTPError) -> str:
    """What a readiness route says is missing, cut to one line."""
    try:
        said = json.loads(error.read(10_000))
    except (OSError, ValueError):
        return ""
    problems = said.get("problems", said) if isinstance(said, dict) else said
    if isinstance(problems, dict):
        problems = [f"{name}: {value}" for name, value in problems.items()]
    text = "; ".join(map(str, problems)) if isinstance(problems, list) else str(problems)
    return f" ({text[:200]})" if text else ""


def ask(url: str, body: Any = None) -> Any:
    """The JSON that an address answers (POST where there is a body), or None where it does not."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})  # noqa: S310
    try:
        with _open(request) as reply:
            return json.load(reply)
    except (OSError, ValueError):
        return None
