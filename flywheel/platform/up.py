"""`flywheel up` and `flywheel down`: the platform in the background, whole or not at all.

`up` ends when every service is ready, or says which is not and why, with the end of its log, and stops everything
again. supervisord starts a service again that ends. It runs under tasks/core/supervise.py, so all that it started ends
with it, however it ends; `down` ends the two, and with them every process of the platform.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from xmlrpc.client import Error, ServerProxy

import psutil

from flywheel.platform.platform import Platform, Service
from tasks.core import layout, processes
from tasks.core.clock import now
from tasks.core.errors import FlywheelError
from tasks.core.files import write_bytes, write_json
from tasks.store.identities import create_identity, list_identities
from tasks.store.migrate import migrate
from tasks.store.store import Store

CONFIG = Path("infra/supervisor/platform.conf")
GRACE_SECONDS = 30.0  # longest stopwaitsecs of the configuration
LOOK_SECONDS = 0.5
DEPLOY_SECONDS = 180.0
LOST = (OSError, HTTPException, Error)  # what a call of supervisord raises

Say = Callable[["list[Step]"], None]
FIRST = ("admin", "chat")  # names, and roles


class PlatformFailed(FlywheelError):
    """The platform, or a part of it, cannot be started or stopped; the message says what and why."""


@dataclass
class Step:
    """How far one service, or the deployment of the flows, has come. `note` is what it waits for."""

    name: str
    note: str = "waiting its turn"
    started: float | None = None
    ready: float | None = None
    pid: int = 0

    @property
    def seconds(self) -> float:
        """How long it has been, or was, on its way."""
        return 0.0 if self.started is None else (self.ready or time.monotonic()) - self.started


@dataclass
class Start:
    """One `up` at work."""

    platform: Platform
    services: dict[str, Service]
    steps: dict[str, Step] = field(default_factory=dict)
    deploy: subprocess.Popen[bytes] | None = None


def up(platform: Platform, say: Say) -> bool:
    """Start the platform and wait until all of it is ready; returns False if it was up already.

    Raises:
        PlatformFailed: a port is taken, or a service died or was not ready in time; nothing is left running.
        FlywheelError: the store or the settings are wrong.
    """
    with _one_at_a_time(platform):
        if is_up(platform):
            return False
        _stop(platform)  # some of it may be up: begin again
        if platform.params.engine.kind != "url" and not (platform.root / layout.BASE_MODEL / "MANIFEST.json").is_file():
            raise PlatformFailed(
                f"{layout.BASE_MODEL} is missing; `make up` builds it, or `.venv/bin/dvc repro base_model`"
            )
        _check_ports(platform)
        migrate(None, home=platform.root)
        first_keys(platform.root)
        try:
            _start_supervisord(platform)
            _bring_up(platform, say)
        except BaseException:
            _stop(platform)
            raise
    return True


def down(platform: Platform) -> int:
    """Stop everything; returns how many processes there were. Nothing running is no error."""
    with _one_at_a_time(platform):
        return _stop(platform)


def is_wanted(platform: Platform) -> bool:
    """Whether somebody said `up` and not `down` since."""
    return (platform.root / layout.PLATFORM_UP).exists()


def is_up(platform: Platform) -> bool:
    """Whether supervisord runs, and every service of ours with it."""
    found = states(platform)
    ours = [service.name for service in platform.services() if service.ours]
    return found is not None and all(found[name]["statename"] in ("RUNNING", "STARTING") for name in ours)


def running(root: Path) -> list[psutil.Process]:
    """The platform's processes: the supervisor that was started last, if it lives, and all below it."""
    with contextlib.suppress(OSError, ValueError, LookupError, psutil.Error):
        record = json.loads((root / layout.PLATFORM_UP).read_text(encoding="utf-8"))
        supervisor = psutil.Process(record["pid"])
        if supervisor.create_time() == record["born"] and supervisor.status() != psutil.STATUS_ZOMBIE:
            return [supervisor, *supervisor.children(recursive=True)]
    return []


def states(platform: Platform) -> dict[str, dict[str, Any]] | None:
    """Service → what supervisord says of it (statename, pid, spawnerr, …); None if supervisord is not running."""
    if not platform.socket.exists():
        return None
    try:
        return {row["name"]: row for row in _supervisord(platform).getAllProcessInfo()}
    except LOST:
        return None


def _supervisord(platform: Platform) -> Any:
    """supervisord's own calls, by name. Each can raise what `LOST` names."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(None, None, f"unix://{platform.socket}")
    return ServerProxy("http://127.0.0.1", transport=transport).supervisor


def _start_supervisord(platform: Platform) -> None:
    """Start supervisord in the background, and wait until it takes orders."""
    platform.state.chmod(0o700)
    (platform.root / layout.CACHE / "hub").mkdir(parents=True, exist_ok=True)
    platform.socket.unlink(missing_ok=True)
    log = platform.state / "supervisord.log"
    command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(platform.root / CONFIG)]
    with log.open("ab") as stream:
        process = processes.start(
            command, grace=GRACE_SECONDS, cwd=platform.root, env=platform.environment(), out=stream, outlives_us=True
        )
    record = {"since": now().isoformat(timespec="seconds"), "pid": process.pid}
    write_json(platform.root / layout.PLATFORM_UP, record | {"born": psutil.Process(process.pid).create_time()})
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if states(platform) is not None:
            return
        time.sleep(0.1)
    raise PlatformFailed(f"supervisord did not start: {last_lines(log)}")


def _stop(platform: Platform) -> int:
    """End supervisord in good order, or else all at once; returns how many processes there were."""
    found = running(platform.root)
    if found:
        with contextlib.suppress(*LOST):
            _supervisord(platform).shutdown()
        _, late = psutil.wait_procs(found[:1], timeout=2 * GRACE_SECONDS)
        for supervisor in late:
            supervisor.terminate()
            supervisor.wait()
    platform.socket.unlink(missing_ok=True)
    (platform.root / layout.PLATFORM_UP).unlink(missing_ok=True)
    return len(found)


@contextlib.contextmanager
def _one_at_a_time(platform: Platform) -> Iterator[None]:
    """Two people cannot start and stop the same platform at once."""
    platform.state.mkdir(parents=True, exist_ok=True)
    with (platform.state / "lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformFailed("another `up` or `down` is at work here; wait for it to end") from None
        yield


def _check_ports(platform: Platform) -> None:
    """Every port must be free."""
    problems = []
    for service in platform.services():
        if service.ours and service.port:
            host = platform.params.serving.host if service.name == "gateway" else processes.LOOPBACK
            if taken := holder(host, service.port):
                problems.append(f"port {service.port}, for {service.name}, is held by {taken}")
    if problems:
        raise PlatformFailed("\n".join([*problems, "End what holds it, or choose another port in params.yaml"]))


def holder(host: str, port: int) -> str:
    """Who holds a port, in words; "" if it can be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return ""
        except OSError as error:
            reason = error.strerror or str(error)
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {process.pid} ({' '.join(process.cmdline())[:100] or process.name()})"
    return f"a process that cannot be seen ({reason})"


def _bring_up(platform: Platform, say: Say) -> None:
    since = now().isoformat()
    services = {service.name: service for service in platform.services(since)}
    work = Start(platform, services, {name: Step(name) for name in (*services, "deployments")})
    try:
        while any(step.ready is None for step in work.steps.values()):
            _look(work)
            say(list(work.steps.values()))
            time.sleep(LOOK_SECONDS)
    finally:
        if work.deploy is not None:
            processes.stop(work.deploy)


def _look(work: Start) -> None:
    """Start what can be started, and see how far the rest has come."""
    found = states(work.platform)
    if found is None:
        raise PlatformFailed(f"supervisord ended: {last_lines(work.platform.state / 'supervisord.log')}")
    for service in work.services.values():
        step = work.steps[service.name]
        if step.started is None:
            if all(work.steps[name].ready for name in service.after):
                _start(work, service, step)
        elif step.ready is None:
            _check(work, service, step, found.get(service.name, {}))
    if work.steps["worker"].ready:
        _deploy(work, work.steps["deployments"])


def _start(work: Start, service: Service, step: Step) -> None:
    step.started, step.note = time.monotonic(), "starting"
    if service.ours:
        try:
            _supervisord(work.platform).startProcess(service.name, False)
        except LOST as error:
            raise _failed(work, service.name, f"could not be started ({error})") from None


def _check(work: Start, service: Service, step: Step, found: dict[str, Any]) -> None:
    pid, state = int(found.get("pid", 0)), found.get("statename")
    if service.ours and (state in ("BACKOFF", "FATAL", "EXITED") or (step.pid and pid != step.pid)):
        raise _failed(work, service.name, "ended while starting")
    step.pid = pid
    step.note = service.check()
    if not step.note:
        step.ready = time.monotonic()
    elif step.seconds > service.seconds:
        raise _failed(work, service.name, f"was not ready within {service.seconds:.0f} s: it {step.note}")


def _deploy(work: Start, step: Step) -> None:
    """Bring the deployments to the server, as a process of its own beside the services that still start."""
    if work.deploy is None:
        step.started, step.note = time.monotonic(), "deploying"
        command = [sys.executable, "-m", "flows.deploy"]
        with (work.platform.state / "deployments.log").open("wb") as log:
            work.deploy = processes.start(
                command, grace=5, cwd=work.platform.root, env=work.platform.environment(), out=log
            )
    status = work.deploy.poll()
    if status == 0:
        step.ready, step.note = step.ready or time.monotonic(), ""
    elif status is not None or step.seconds > DEPLOY_SECONDS:
        raise _failed(work, "deployments", "could not be brought to the Prefect server")


def _failed(work: Start, name: str, reason: str) -> PlatformFailed:
    path = work.platform.state / f"{name}.log"
    return PlatformFailed(
        f"{name} {reason}. Everything is stopped again. The end of {path.relative_to(work.platform.root)}:\n"
        f"{last_lines(path)}"
    )


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log, for an error message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return "\n".join(lines[-count:]) or "(its log is empty)"


def secret_path(root: Path, name: str) -> Path:
    """Where the key of a first identity lies."""
    return root / layout.SECRETS / f"{name}.key"


def read_key(root: Path, name: str) -> str | None:
    """The key of a first identity, None where it is not here."""
    try:
        return secret_path(root, name).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def first_keys(root: Path) -> None:
    """Make the identities `admin` and `chat` where the store lacks them, and keep their keys."""
    (root / layout.SECRETS).mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.closing(Store.open(home=root)) as store:
        known = {identity.name for identity in list_identities(store)}
        for name in FIRST:
            if name not in known:
                _, key = create_identity(store, name, name)
                write_bytes(secret_path(root, name), f"{key}\n".encode(), mode=0o600)
