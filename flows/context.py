"""What one run of the release flow knows, shared by its parts: flows/release.py and flows/registration.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from flows import stages as dvc
from flows.workspace import Workspace

if TYPE_CHECKING:
    from dvc.repo import Repo

    from tasks.registry.versions import Registry
    from tasks.store.store import Store

# No step is retried or cached by Prefect: DVC knows what is up to date, and a stage that failed would fail again.
STEP: dict[str, Any] = {"retries": 0, "cache_policy": NO_CACHE, "persist_result": False}


def step(name: str, work: Callable[[], Any], wait_for: Iterable[State] = ()) -> Any:
    """Do something as a Prefect task of this name; returns what it returns."""

    @task(name=name, task_run_name=name, **STEP)
    def run() -> Any:
        return work()

    return run(wait_for=list(wait_for))


@dataclass
class Release:
    """One run of the flow: where it works, and what it has found so far. `ask`: a person decides on promotion.

    `night`: the number of the night that asks, if one does.
    """

    place: Workspace
    domain: str
    registry: Registry
    store: Store
    repo: Repo
    stages: list[dvc.Stage]
    inputs: str
    reason: str
    flow_run_id: str
    started: float
    ask: bool = False
    night: int | None = None
    mlflow_run: str = ""
    runs: list[dvc.StageRun] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
