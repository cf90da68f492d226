"""The small flows that an operator starts or watches: promote, rollback, approve, forget, and the alarm, every hour.

The first four do what the verbs of these names do. The alarm is red in Prefect when no night has finished for
params.nightly.alarm_hours. It also clears away dead runs (flows/worker.py): it has a deployment of its own, so a dead
nightly cannot block it.
"""

from __future__ import annotations

import contextlib
from typing import Literal

from prefect import flow, get_run_logger
from prefect.runtime import flow_run as current_flow_run
from prefect.states import Completed, Failed, State

from flows import forget as forgetting
from flows.live import decided, live, promoted_by_hand, rolled_back
from flows.worker import sweep
from tasks.core import layout
from tasks.core.clock import now
from tasks.core.params import load_params
from tasks.store.nights import overdue
from tasks.store.store import Store


@flow(name="promote", retries=0, persist_result=False)
def promote(version: str = "candidate", reason: str = "promoted from Prefect", override: bool = False) -> State:
    """Make a version champion.

    Args:
        version: its number, or an alias.
        reason: kept in the ledger; with `override` also with the version, in place of a passing verdict.
        override: promote although there is no passing verdict.
    """
    home = layout.home()
    with contextlib.chdir(home), live(home) as (params, registry, store):
        stands_in = reason if override else None
        return Completed(message=promoted_by_hand(registry, store, params, version, stands_in, reason)[1])


@flow(name="rollback", retries=0, persist_result=False)
def rollback(reason: str = "rolled back from Prefect") -> State:
    """Exchange `champion` and `previous`; Failed if a running gateway does not serve it."""
    home = layout.home()
    with contextlib.chdir(home), live(home) as (params, registry, store):
        _, _, served, words = rolled_back(registry, store, params, reason)
        return Failed(message=words) if served is False else Completed(message=words)


@flow(name="approve", retries=0, persist_result=False)
def approve(version: str, decision: Literal["approve", "refuse"], reason: str = "") -> State:
    """Answer the question whether a version may become champion; a yes promotes it.

    Args:
        version: its number, or `candidate`.
        decision: a version that is refused stays what it is, and so does the champion.
        reason: kept in the ledger. Say who you are: Prefect does not.
    """
    home = layout.home()
    with contextlib.chdir(home), live(home) as (params, registry, store):
        return Completed(message=decided(registry, store, params, version, decision == "approve", reason)[1])


@flow(name="forget", retries=0, persist_result=False)
def forget(kind: Literal["feedback", "example", "source"], name: str) -> State:
    """Do what `flywheel forget --yes` does; not for a person, whose name would stay in Prefect's own database.

    Args:
        kind: what is forgotten.
        name: its id, or the source's name.
    """
    found = forgetting.forget(layout.home(), kind, name, sure=True)
    return Completed(message="; ".join([f"certificate {found['certificate']}", *found["remaining"]]))


@flow(name="alarm", retries=0, persist_result=False)
def alarm() -> State:
    """Completed if a night finished in time; Failed, with the reason, if not."""
    for line in sweep(keep=str(current_flow_run.id or "")):
        get_run_logger().warning(line)
    home = layout.home()
    params = load_params(home / layout.PARAMS)
    with contextlib.closing(Store.open(home=home)) as store:
        reason = overdue(store, params.domain, params.nightly.alarm_hours, now())
    if reason:
        get_run_logger().error(reason)
        return Failed(name="Alarm", message=reason)
    return Completed(message="a night finished in time")
