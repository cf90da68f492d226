"""The platform as `flywheel up` starts it, with every real service, on a model cut to two layers: up, killed, down.

One test, because a start takes a minute or two. Only flows/nightly.py is replaced, by a night that only waits.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from flywheel.platform.up import running
from tasks.core.processes import free_port
from tests.flows.toy import environment, make_toy
from tests.serving.gateways import wait_for
from tests.training import link_weights

pytestmark = pytest.mark.slow

NIGHT = '''"""A night that waits."""
import time
from prefect import flow

@flow(name="nightly")
def nightly(workspace: str | None = None, force: bool = False) -> None:
    time.sleep(600 if force else 0)
'''
PORTS = (("platform", "prefect_port"), ("platform", "mlflow_port"), ("engine", "port"), ("serving", "port"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, root: Path, tiny_model: Path) -> Iterator[Path]:
    project = make_toy(tmp_path_factory.mktemp("platform") / "toy")
    for name in ("flows", "tasks", "flywheel", "serving"):
        shutil.copytree(root / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "flows/nightly.py").write_text(NIGHT)
    (project / ".venv").symlink_to(root / ".venv")
    link_weights(tiny_model, project / "data/base_model")
    params = yaml.safe_load((project / "params.yaml").read_text())
    for section, key in PORTS:
        params[section][key] = free_port()
    params["engine"]["kind"] = "transformers"
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    yield project
    flywheel(project, "down", status=None)


def flywheel(project: Path, *arguments: str, status: int | None = 0) -> dict[str, Any]:
    """What a verb answers, from the project's own copy of the code."""
    surroundings = environment(project) | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    surroundings.pop("FLYWHEEL_DATABASE_URL", None)
    command = [sys.executable, "-P", "-m", "flywheel", *arguments, "--json"]
    done = subprocess.run(command, cwd=project, env=surroundings, capture_output=True, text=True, timeout=500)
    assert status is None or done.returncode == status, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


class Prefect:
    """The platform's Prefect server, by its API."""

    def __init__(self, project: Path) -> None:
        port = yaml.safe_load((project / "params.yaml").read_text())["platform"]["prefect_port"]
        self.api = f"http://127.0.0.1:{port}/api"

    def deployments(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in httpx.post(f"{self.api}/deployments/filter", json={}).json()}

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run once; asked again where the busy server answers with an error, as Prefect's own client does."""
        asked = {"parameters": parameters, "idempotency_key": uuid.uuid4().hex}
        url = f"{self.api}/deployments/{self.deployments()[name]['id']}/create_flow_run"
        return str(wait_for(lambda: httpx.post(url, json=asked).raise_for_status().json()["id"]))

    def state(self, run: str) -> str:
        return str(httpx.get(f"{self.api}/flow_runs/{run}").json()["state_name"])

    def scheduled(self, name: str) -> list[str]:
        wanted = {"deployments": {"name": {"any_": [name]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        found = httpx.post(f"{self.api}/flow_runs/filter", json=wanted).json()
        return [row["expected_start_time"] for row in found]


def by_command(project: Path, *words: str) -> psutil.Process | None:
    """The platform's process whose command holds all these words."""
    for process in running(project):
        with contextlib.suppress(psutil.Error):
            if all(word in " ".join(process.cmdline()) for word in words):
                return process
    return None


def test_the_platform_comes_up_mends_itself_and_goes_down_to_the_last_process(project: Path) -> None:
    found = flywheel(project, "up")
    assert found["started"] and not flywheel(project, "up")["started"]
    prefect = Prefect(project)
    check_status(project)
    check_page(found["chat"])
    check_deployments(prefect)
    check_alarm(project, prefect)
    check_dead_night(project, prefect)
    check_killed_gateway(project, found["services"]["gateway"])
    check_down(project)


def check_status(project: Path) -> None:
    """All is well, once Prefect's first work is done: on a busy machine it answers late just after its start."""

    def calm() -> dict[str, Any] | None:
        found = flywheel(project, "status", status=None)
        return None if found["attention"] else found

    found = wait_for(calm)
    assert found["platform"] == "up"
    assert {name for name, row in found["services"].items() if row["ready"]} == set(found["services"])
    assert found["serving"]["version"] == "base" and found["next_night"] and found["alarm"] is None
    for name in ("admin", "chat"):
        assert (project / f".flywheel/secrets/{name}.key").stat().st_mode & 0o777 == 0o600


def check_page(address: str) -> None:
    with httpx.Client(follow_redirects=True) as client:
        page = client.get(address)
    assert page.status_code == 200 and "key=" not in str(page.url)


def check_deployments(prefect: Prefect) -> None:
    """A cron deployment really gets runs (with some versions of SQLAlchemy it silently does not)."""
    assert set(prefect.deployments()) == {"release", "nightly", "promote", "rollback", "approve", "forget", "alarm"}
    assert wait_for(lambda: len(prefect.scheduled("nightly")) >= 2 and len(prefect.scheduled("alarm")) >= 2)
    run = prefect.start("alarm")
    assert wait_for(lambda: prefect.state(run) == "Completed")


def check_alarm(project: Path, prefect: Prefect) -> None:
    """No night has finished since the platform was started: too long ago, by a setting changed for this moment."""
    path = project / "params.yaml"
    kept = path.read_text()
    params = yaml.safe_load(kept)
    params["nightly"]["alarm_hours"] = 1e-6
    path.write_text(yaml.safe_dump(params))
    run = prefect.start("alarm")
    assert wait_for(lambda: prefect.state(run) == "Alarm")
    assert flywheel(project, "status", status=1)["attention"][0].startswith("ALARM: no night has finished")
    path.write_text(kept)


def check_dead_night(project: Path, prefect: Prefect) -> None:
    """A night killed with its worker and server holds no slot: the next one runs."""
    dead = prefect.start("nightly", force=True)
    wait_for(lambda: prefect.state(dead) == "Running")
    second = prefect.start("nightly")
    assert wait_for(lambda: prefect.state(second) == "Cancelled")
    for words in (("prefect.engine",), ("worker", "start"), ("server", "start")):
        process = by_command(project, *words)
        assert process is not None, words
        process.kill()
    assert wait_for(lambda: prefect.state(dead) == "Crashed")
    third = prefect.start("nightly")
    assert wait_for(lambda: prefect.state(third) == "Completed")


def check_killed_gateway(project: Path, address: str) -> None:
    gateway = by_command(project, "-m serving")
    assert gateway is not None
    gateway.kill()
    again = wait_for(lambda: (one := by_command(project, "-m serving")) and one.pid != gateway.pid)
    assert again
    assert wait_for(lambda: httpx.get(f"{address}/readyz").status_code == 200)


def check_down(project: Path) -> None:
    """kill -9 of supervisord takes its services with it, and status tells; `down` clears up."""
    supervisor = by_command(project, "supervise.py", "supervisord")  # our own, with supervisord below it
    family = running(project)
    assert supervisor is not None and len(family) > 6
    supervisor.children()[0].kill()
    wait_for(lambda: not any(map(psutil.Process.is_running, family)))
    assert flywheel(project, "status", status=1)["platform"] == "broken"
    assert flywheel(project, "down") == {"stopped": 0, "left": 0}
    params = yaml.safe_load((project / "params.yaml").read_text())
    for section, key in PORTS:
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{params[section][key]}/")
    assert flywheel(project, "status")["platform"] == "down"
