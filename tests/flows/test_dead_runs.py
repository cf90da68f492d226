"""Which runs count as dead. That Prefect then frees their slot is shown in tests/e2e/test_platform.py."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Running

from flows.worker import RUN_ID, is_dead, living_runs


def running_since(seconds: float) -> FlowRun:
    state = Running(timestamp=datetime.now(UTC) - timedelta(seconds=seconds))
    return FlowRun(id=uuid.uuid4(), flow_id=uuid.uuid4(), name="night", state=state)


def test_a_run_is_alive_as_long_as_a_process_carries_its_id() -> None:
    run = str(uuid.uuid4())
    process = subprocess.Popen([sys.executable, "-c", "input()"], env={**os.environ, RUN_ID: run}, stdin=-1)
    assert run in living_runs()
    process.kill()
    process.wait()
    assert run not in living_runs()


@pytest.mark.parametrize("seconds, dead", [(1, False), (119, False), (121, True), (86_400, True)])
def test_a_run_without_a_process_is_dead_after_its_grace(seconds: float, dead: bool) -> None:
    assert is_dead(running_since(seconds), set(), grace_seconds=120) is dead


def test_a_living_run_is_never_dead() -> None:
    run = running_since(86_400)
    assert not is_dead(run, {str(run.id)}, grace_seconds=0)
