"""`flywheel up` and `flywheel down`: the platform in the background, whole or not at all.

`up` ends when every service is ready, or says which is not and why, with the end of its log, and stops everything
again. `down` ends when no process of the platform is left, also after supervisord itself was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

from flywheel.platform.platform import Platform, Service
from flywheel.platform.processes import (
    LOST,
    PlatformFailed,
    end_marked,
    holder,
    last_lines,
    marked,
    start_supervisor,
    states,
    stop_supervisor,
    supervisor,
)
from tasks.core import layout
from tasks.core.files import write_json

LOOK_SECONDS = 0.5
DEPLOY_SECONDS = 180.0

Say = Callable[["list[Step]"], None]


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
    with one_at_a_time(platform):
        if is_up(platform):
            return False
        if states(platform) is not None:  # some of it: begin again
            stop_supervisor(platform)
        end_marked(platform.root)
        check_base_model(platform)
        check_ports(platform)
        prepare_store(platform)
        try:
            write_json(_record(platform), {"since": datetime.now(UTC).isoformat(timespec="seconds")})
            start_supervisor(platform)
            _bring_up(platform, say)
        except BaseException:
            stop_all(platform)
            raise
    return True


def down(platform: Platform) -> int:
    """Stop everything; returns how many processes there were. Nothing running is no error.

    Raises:
        PlatformFailed: a process does not end.
    """
    with one_at_a_time(platform):
        before = len(marked(platform.root))
        stop_all(platform)
    return before


def stop_all(platform: Platform) -> None:
    """supervisord with its services, then whatever still carries the marker."""
    stop_supervisor(platform)
    end_marked(platform.root)
    platform.socket.unlink(missing_ok=True)
    _record(platform).unlink(missing_ok=True)


def is_wanted(platform: Platform) -> bool:
    """Whether somebody said `up` and not `down` since."""
    return _record(platform).exists()


def is_up(platform: Platform) -> bool:
    """Whether supervisord runs, and every service of ours with it."""
    found = states(platform)
    ours = [service.name for service in platform.services() if service.ours]
    return found is not None and all(found[name]["statename"] in ("RUNNING", "STARTING") for name in ours)


def _record(platform: Platform) -> Any:
    return platform.root / layout.PLATFORM_UP


@contextlib.contextmanager
def one_at_a_time(platform: Platform) -> Iterator[None]:
    """Two people cannot start and stop the same platform at once."""
    platform.state.mkdir(parents=True, exist_ok=True)
    with (platform.state / "lock").open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformFailed("another `up` or `down` is at work here; wait for it to end") from None
        yield


def check_base_model(platform: Platform) -> None:
    """The engine serves the base model's files.

    Raises:
        PlatformFailed: they are not here.
    """
    missing = not (platform.root / layout.BASE_MODEL / "MANIFEST.json").is_file()
    if platform.params.engine.kind != "url" and missing:
        raise PlatformFailed(
            f"{layout.BASE_MODEL} is missing; `make up` builds it, or `.venv/bin/dvc repro base_model`"
        )


def check_ports(platform: Platform) -> None:
    """Every port must be free.

    Raises:
        PlatformFailed: one is taken; the message names the process that holds it.
    """
    problems = []
    for service in platform.services():
        if service.ours and service.port:
            host = platform.params.serving.host if service.name == "gateway" else "127.0.0.1"
            if taken := holder(host, service.port):
                problems.append(f"port {service.port}, for {service.name}, is held by {taken}")
    if problems:
        raise PlatformFailed("\n".join([*problems, "End what holds it, or choose another port in params.yaml"]))


def prepare_store(platform: Platform) -> None:
    """Bring the database to this version's schema, and make the first keys."""
    from flywheel.platform.keys import first_keys
    from tasks.store.migrate import migrate

    migrate(None, home=platform.root)
    first_keys(platform.root)


def _bring_up(platform: Platform, say: Say) -> None:
    since = datetime.now(UTC).isoformat()
    services = {service.name: service for service in platform.services(since)}
    work = Start(platform, services, {name: Step(name) for name in (*services, "deployments")})
    try:
        while any(step.ready is None for step in work.steps.values()):
            _look(work)
            say(list(work.steps.values()))
            time.sleep(LOOK_SECONDS)
    finally:
        if work.deploy is not None and work.deploy.poll() is None:
            work.deploy.terminate()


def _look(work: Start) -> None:
    """Start what can be started, and see how far the rest has come.

    Raises:
        PlatformFailed: a service died or is late, or the flows cannot be deployed.
    """
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
            supervisor(work.platform).startProcess(service.name, False)
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
    log = work.platform.state / "deployments.log"
    if work.deploy is None:
        step.started, step.note = time.monotonic(), "deploying"
        with log.open("wb") as stream:
            work.deploy = _child(work.platform, stream)
    status = work.deploy.poll()
    if status == 0:
        step.ready, step.note = step.ready or time.monotonic(), ""
    elif status is not None or step.seconds > DEPLOY_SECONDS:
        raise _failed(work, "deployments", "could not be brought to the Prefect server")


def _child(platform: Platform, log: IO[bytes]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flows.deploy"]
    environment = platform.environment()
    return subprocess.Popen(
        command, cwd=platform.root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )


def _failed(work: Start, name: str, reason: str) -> PlatformFailed:
    path = work.platform.state / f"{name}.log"
    return PlatformFailed(
        f"{name} {reason}. Everything is stopped again. The end of {path.relative_to(work.platform.root)}:\n"
        f"{last_lines(path)}"
    )
