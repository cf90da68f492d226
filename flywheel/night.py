"""`flywheel nightly`: one night, on the platform as its deployment, or in a process of its own where it is down."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.core import layout
from tasks.core.errors import FlywheelError

if TYPE_CHECKING:
    from flywheel.platform.platform import Platform

DEPLOYMENT = "nightly/nightly"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
LOOK_SECONDS = 2.0


class NightRefused(FlywheelError):
    """The night could not be started; the message says why."""


def run_here(root: Path, force: bool, quiet: bool) -> int:
    """Run the night in this checkout, with a Prefect server of its own; returns the exit status."""
    command = [sys.executable, "-m", "flows.run", "--nightly", *(["--force"] if force else [])]
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, cwd=root, env=layout.child_environment(), stdout=output).returncode


def run_on_platform(platform: Platform, force: bool, quiet: bool) -> int:
    """Start the deployment and follow it, step by step; returns 0 if the night completed, 1 if not.

    Raises:
        NightRefused: Prefect does not answer, or the deployment is not there.
    """
    run = _start(platform, force)
    if not quiet:
        click.echo(f"Night started on the platform: {platform.prefect_api.removesuffix('/api')}/runs/flow-run/{run}")
    told: dict[str, str] = {}
    while True:
        state = _state(platform, run)
        if not quiet:
            _tell(platform, run, told)
        if state.get("type") in ENDED:
            if not quiet:
                click.echo(f"{state.get('name')}: {state.get('message') or ''}")
            return 0 if state["type"] == "COMPLETED" else 1
        time.sleep(LOOK_SECONDS)


def _start(platform: Platform, force: bool) -> str:
    from flywheel.platform.platform import ask

    deployment = ask(f"{platform.prefect_api}/deployments/name/{DEPLOYMENT}")
    if not deployment:
        raise NightRefused(f"the deployment {DEPLOYMENT} is not there; `make up` deploys it")
    wanted = {"parameters": {**deployment.get("parameters", {}), "force": force}, "state": {"type": "SCHEDULED"}}
    run = ask(f"{platform.prefect_api}/deployments/{deployment['id']}/create_flow_run", wanted)
    if not run:
        raise NightRefused("Prefect did not take the run; look at `flywheel status`")
    return str(run["id"])


def _state(platform: Platform, run: str) -> dict[str, Any]:
    """The run's state; {} while Prefect does not answer, which it may under load."""
    from flywheel.platform.platform import ask

    found = ask(f"{platform.prefect_api}/flow_runs/{run}") or {}
    return found.get("state") or {}


def _tell(platform: Platform, run: str, told: dict[str, str]) -> None:
    """A line for each step that began or ended since the last look, of the night and of the release inside it."""
    from flywheel.platform.platform import ask

    inner = ask(f"{platform.prefect_api}/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
    runs = [run, *(item["id"] for item in inner or [])]
    body = {"flow_runs": {"id": {"any_": runs}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 100}
    for step in ask(f"{platform.prefect_api}/task_runs/filter", body) or []:
        state = step.get("state") or {}
        name = str(state.get("name", ""))
        if told.get(step["id"]) != name and name not in ("Pending", "Scheduled", ""):
            told[step["id"]] = name
            message = f"  {state.get('message')}" if name not in ("Running",) and state.get("message") else ""
            click.echo(f"  {step['name']:<20} {name.lower()}{message}")
