"""The alarm flow: red in Prefect when no night has finished for params.nightly.alarm_hours. Scheduled every hour.

It also clears away dead runs (flows/dead_runs.py): it has a deployment of its own, so a dead nightly cannot block it.
Needs the store (FLYWHEEL_DATABASE_URL, or the embedded one under FLYWHEEL_ROOT) and a Prefect API.
"""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import flow, get_run_logger
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Completed, Failed, State

from flows.dead_runs import sweep
from tasks.core import layout
from tasks.core.params import load_params
from tasks.store.overdue import overdue
from tasks.store.store import Store


@flow(name="alarm", retries=0, persist_result=False)
def alarm() -> State:
    """Completed if a night finished in time; Failed, with the reason, if not."""
    home = layout.home()
    for line in sweep(keep=str(current_flow_run.id or "")):
        get_run_logger().warning(line)
    params = load_params(home / layout.PARAMS)
    store = Store.open(home=home)
    try:
        reason = overdue(store, params.domain, params.nightly.alarm_hours, datetime.now(UTC))
    finally:
        store.close()
    if reason:
        get_run_logger().error(reason)
        return Failed(name="Alarm", message=reason)
    return Completed(message="a night finished in time")
