"""One MLflow run a release: where it is kept, how it is opened, filled and closed.

The package `tasks.registry` is the only one that imports mlflow. Nothing here loads a model: mlflow's loaders can
unpickle. Metrics go in batches, which is some 75 times faster than one by one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.core import layout

if TYPE_CHECKING:
    from mlflow import MlflowClient

STORE = layout.HOME / "mlflow"
PARAM_LIMIT = 6000
RUN_STATE = "flywheel.state"
PACKAGE_ARTIFACT = "package"


def tracking_uri(home: Path) -> str:
    """MLFLOW_TRACKING_URI, or the embedded SQLite database under `home`."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(home / STORE / 'mlflow.db').absolute()}"


def connect(home: Path) -> MlflowClient:
    """A client for the tracking store and the registry; creates the embedded folders on first use."""
    os.environ.update(layout.OFFLINE)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    (home / STORE).mkdir(parents=True, exist_ok=True)
    from mlflow import MlflowClient, set_tracking_uri

    for name in ("alembic", "mlflow", "mlflow.store.db.utils"):  # mlflow sets its own levels when it is imported
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = tracking_uri(home)
    set_tracking_uri(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(client: MlflowClient, home: Path, domain: str) -> str:
    """The domain's experiment, created where it is missing. Beside a local database, artifacts lie beside it."""
    found = client.get_experiment_by_name(domain)
    if found is not None:
        return str(found.experiment_id)
    local = not tracking_uri(home).startswith(("http://", "https://"))
    location = (home / STORE / "artifacts").absolute().as_uri() if local else None
    return str(client.create_experiment(domain, artifact_location=location))


def open_run(client: MlflowClient, home: Path, domain: str, inputs: str, reason: str) -> str:
    """The run of this release: the unfinished one with the same inputs after a crash, else a new one. Returns its id.

    Unfinished runs of other inputs are closed as killed: a workspace runs one release at a time.
    """
    experiment = experiment_id(client, home, domain)
    wanted = None
    for run in client.search_runs([experiment], f"tags.`{RUN_STATE}` = 'open'", max_results=100):
        if run.data.tags.get("inputs_sha256") == inputs and wanted is None:
            wanted = run.info.run_id
            client.update_run(wanted, status="RUNNING")
        else:
            close_run(client, run.info.run_id, "KILLED")
    if wanted is None:
        name = f"{domain}-{time.strftime('%Y%m%d-%H%M%S')}"
        tags = {RUN_STATE: "open", "inputs_sha256": inputs, "reason": reason, "domain": domain}
        wanted = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    return str(wanted)


def close_run(client: MlflowClient, run_id: str, status: str) -> None:
    """End a run: FINISHED, FAILED or KILLED."""
    client.set_tag(run_id, RUN_STATE, status.lower())
    client.set_terminated(run_id, status=status)


def log_params(client: MlflowClient, run_id: str, params: Path) -> None:
    """params.yaml, flattened to dotted keys. A key the trainer logged itself keeps the trainer's value."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    values = flatten(yaml.safe_load(params.read_text(encoding="utf-8")))
    rows = [Param(key, text(value)[:PARAM_LIMIT]) for key, value in values if key not in known]
    for start in range(0, len(rows), 100):
        client.log_batch(run_id, params=rows[start : start + 100])


def log_metrics(client: MlflowClient, run_id: str, reports: Path) -> None:
    """Every figure of the stages and of the verdict's criteria, in batches."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = [Metric(key, value, now, 0) for key, value in figures(reports)]
    for start in range(0, len(rows), 500):
        client.log_batch(run_id, metrics=rows[start : start + 500])


def figures(reports: Path) -> Iterator[tuple[str, float]]:
    """(name, value) of every finite number in the stages' metrics and details, of the usage and in the verdict."""
    for path in sorted([*reports.glob("metrics/*.json"), *reports.glob("details/*.json"), *reports.glob("usage.json")]):
        yield from _numbers(path.stem, json.loads(path.read_text(encoding="utf-8")))
    verdict = reports / "verdict.json"
    if verdict.is_file():
        judged = json.loads(verdict.read_text(encoding="utf-8"))
        for prefix, part in (("verdict", "criteria"), ("reported", "reported")):  # what decides may be in both
            for one in judged.get(part, []):
                values = {key: one.get(key) for key in ("estimate", "low", "high", "margin", "n")}
                yield from _numbers(f"{prefix}.{one['name']}", values)


def _numbers(prefix: str, value: Any) -> Iterator[tuple[str, float]]:
    for key, item in flatten({prefix: value}):
        if isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
            yield re.sub(r"[^\w./ -]", "_", key), float(item)


def log_files(client: MlflowClient, run_id: str, root: Path) -> None:
    """Reports, package, params, pointers and dvc.lock as artifacts. The verdict and the card lie at the top too."""
    client.log_artifacts(run_id, str(root / layout.REPORTS), "reports")
    client.log_artifacts(run_id, str(root / layout.PACKAGE), PACKAGE_ARTIFACT)
    top = (layout.VERDICT, layout.CARD_HTML, layout.CARD_MARKDOWN, layout.RECEIPT, layout.PARAMS, Path("dvc.lock"))
    for path in (*top, Path("dvc.yaml"), layout.CHAMPION_POINTER, layout.FEEDBACK_POINTER):
        if (root / path).is_file():
            client.log_artifact(run_id, str(root / path), "state" if path.parent == layout.STATE else None)


def drop_artifacts(client: MlflowClient, run_id: str, *paths: str) -> None:
    """Delete files or folders that are kept with a run; what is not there is gone already."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
    for path in paths:
        repository.delete_artifacts(path)


def flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (dotted key, leaf) pairs; a list is a leaf."""
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [pair for key, item in value.items() for pair in flatten(item, f"{prefix}.{key}" if prefix else str(key))]


def text(value: Any) -> str:
    """A parameter's value as MLflow keeps it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
