"""The worker of the platform: clears away runs that died with the last worker, then becomes Prefect's own.

After kill -9 of a flow, Prefect goes on showing it as Running, and a nightly with one slot and CANCEL_NEW would be
cancelled night after night. So whenever the worker starts, and every hour (flows/operate.py), runs that no process on
this machine works on are set to Crashed. The pool `flywheel` is this machine's: workers elsewhere need another.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from tasks.core.clock import now

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun


WORKER = "platform"
POOL = "flywheel"
RUN_ID = "PREFECT__FLOW_RUN_ID"
HELD = ("RUNNING", "PENDING", "CANCELLING")


def main() -> None:
    """Sweep, then take the place of this process. An API that does not answer ends it; supervisord tries again."""
    from httpx import HTTPError

    try:
        cleared = sweep(grace_seconds=0)
    except HTTPError as error:
        sys.exit(f"the Prefect API at {os.environ.get('PREFECT_API_URL')} does not answer: {error}")
    for line in cleared:
        print(line, flush=True)
    command = ["-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER]
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606 - ourselves


def sweep(grace_seconds: float = 120, keep: str = "") -> list[str]:
    """Set every dead run of a deployment to Crashed; returns a sentence for each.

    Args:
        grace_seconds: how long a run may be without a process before it counts as dead: a worker takes some
            seconds from taking a run to starting its process.
        keep: the id of a run never to touch (the caller's own).
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        held = _held_runs(client)
        living = living_runs() if held else set()
        dead = [run for run in held if is_dead(run, living | {keep}, grace_seconds)]
        for run in dead:
            client.set_flow_run_state(run.id, Crashed(message="Its process is gone"), force=True)
    return [
        f"run {run.name} was still {run.state.name if run.state else '?'}, but its process is gone: set to Crashed"
        for run in dead
    ]


def living_runs() -> set[str]:
    """Ids of flow runs that some process of this machine works on."""
    import psutil

    found = {os.environ.get(RUN_ID, "")}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found.add(process.environ().get(RUN_ID, ""))
    return found - {""}


def is_dead(run: FlowRun, living: set[str], grace_seconds: float) -> bool:
    """Whether nobody works on this run any more, as this machine knows."""
    if str(run.id) in living:
        return False
    since = run.state.timestamp if run.state else run.created
    return since is None or (now() - since).total_seconds() >= grace_seconds


def _held_runs(client: SyncPrefectClient) -> list[FlowRun]:
    """Runs of deployments that Prefect takes for alive."""
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterDeploymentId,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    wanted = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType(name) for name in HELD])),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    return [run for run in client.read_flow_runs(flow_run_filter=wanted, limit=200) if run.work_pool_name == POOL]


if __name__ == "__main__":
    main()
