"""A search for better settings of supervised fine-tuning: Optuna's sampler, one training a trial, within a budget.

Each trial trains in a linked copy of the repository and is judged by its loss on mix's validation examples; it is a
child run in MLflow. A search that was stopped goes on with the trial that died, from its last checkpoint. A trial that
by the estimate does not fit into memory, or what is left of the budget, is pruned. params.yaml is not changed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from flows.stages import GRACE_SECONDS
from flows.workspace import one_at_a_time
from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of
from tasks.core.params import load_params
from tasks.core.processes import start, stop
from tasks.core.settings import Section, SettingsError, parse_settings
from tasks.registry.runs import connect, experiment_id, tracking_uri
from tasks.train import estimate_all
from tasks.train.linked_copy import inside, link_copy
from tasks.train.sft.stage import describe

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient

FOLDER = layout.HOME / "search"
MOST_IN_VAIN = 5  # trials pruned or failed in a row: then no other settings fit either


class SearchError(FlywheelError):
    """The search cannot go on; the message says why."""


class Range(Section):
    """Numbers from low to high, both included; whole ones where both are written as whole numbers."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("low must be below high, and above 0 with log")
        return self


Space = dict[str, Range | list[Any]]


def read_space(path: Path) -> Space:
    """The settings to search through.

    Raises:
        SettingsError: the file is missing or holds mistakes; all of them are listed.
    """
    space = parse_settings(path, Space)
    if empty := [name for name, of in space.items() if isinstance(of, list) and not of]:
        raise SettingsError(f"{path}: {', '.join(empty)}: nothing to choose from")
    return space


def drawn(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """The settings of one trial by dotted name."""
    found: dict[str, Any] = {}
    for name, of in space.items():
        if isinstance(of, list):
            found[name] = trial.suggest_categorical(name, of)
        elif isinstance(of.low, int) and isinstance(of.high, int):
            found[name] = trial.suggest_int(name, of.low, of.high, log=of.log)
        else:
            found[name] = trial.suggest_float(name, of.low, of.high, log=of.log)
    return found


def study_name(root: Path, space: Space) -> str:
    """One study for one space over the same other settings, data, base, start and code: their losses compare."""
    with inside(link_copy(root, (root / FOLDER / "settings").absolute(), {}, keep_trained=False)):
        params = load_params()
        try:
            job = describe(params, load_domain(params.domain))
            drawn_from = {name: of if isinstance(of, list) else of.model_dump() for name, of in space.items()}
            return f"sft-{digest_of([drawn_from, params.domain, job.digest()])[:16]}"
        except FileNotFoundError as error:
            raise SearchError(f"{error.filename} is missing; run .venv/bin/dvc repro mix") from None


def study_of(root: Path, name: str, seed: int) -> optuna.Study:
    """The study of this name, begun or gone on with; trials that a kill left running are marked failed and tried again.

    The sampler's draws depend on the seed and on the number of trials there are.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{(root / FOLDER / 'studies.db').absolute()}"
    study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True, direction="minimize")
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


@dataclass
class Search:
    """A search at work: in the folder of its study, under one MLflow run; `seconds` is all that trials may take."""

    root: Path
    space: Space
    study: optuna.Study
    client: MlflowClient
    parent: str
    seconds: float

    @property
    def left(self) -> float:
        """Seconds of the budget, which the trials of earlier calls used too."""
        return self.seconds - sum(trial.user_attrs.get("seconds", 0.0) for trial in self.study.trials)

    def run(self, trials: int) -> None:
        """Try settings until so many trials have ended, the budget is spent, or nothing fits."""
        import optuna

        done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        while self.left > 0 and len(self.study.get_trials(deepcopy=False, states=done)) < trials:
            self.study.optimize(self.objective, n_trials=1, catch=(SearchError,))
            *_, last = self.study.trials
            outcome = f"validation loss {last.value:.4f}" if last.value is not None else last.state.name.lower()
            settings = ", ".join(f"{name}={value}" for name, value in last.params.items())
            _tell(f"trial {last.number}: {outcome}, {last.user_attrs.get('seconds', 0):.0f} s; {settings}")
            if [trial.value for trial in self.study.trials[-MOST_IN_VAIN:]] == [None] * MOST_IN_VAIN:
                return

    def objective(self, trial: optuna.Trial) -> float:
        """Train with a trial's settings as a child run; returns the validation loss, in nats a token.

        Raises:
            SearchError: the settings are refused, or the training failed.
            TrialPruned: it would not fit into memory or what is left of the budget.
        """
        import optuna

        changes, folder = drawn(trial, self.space), (self.root / FOLDER / self.study.study_name).absolute()
        run = _open_run(self.client, self.parent, f"trial-{trial.number}", trial=str(trial.number))
        for name, value in changes.items():
            self.client.log_param(run, name, value)
        began, status = time.monotonic(), "KILLED"
        try:
            _fits(self.root, trial, changes, self.left)
            loss = _train(self.root, folder, changes, run)
            self.client.log_metric(run, "validation_loss", loss)
            status = "FINISHED"
            shutil.rmtree(folder, ignore_errors=True)
        except Exception as error:  # what ends the search itself is none: then the folder stays, with its checkpoints
            status = "KILLED" if isinstance(error, optuna.TrialPruned) else "FAILED"
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            trial.set_user_attr("seconds", time.monotonic() - began)
            self.client.set_terminated(run, status=status)
        return loss


def search(root: Path, space: Space, trials: int, minutes: float) -> dict[str, Any]:
    """Try settings until so many trials have ended or the budget is spent; returns the best, and all of them.

    Raises:
        SearchError: no trial ended with a loss.
    """
    with one_at_a_time(root, _tell, "search"):
        params, client = load_params(root / layout.PARAMS), connect(root)
        name, experiment = study_name(root, space), experiment_id(client, root, params.domain)
        clear(root, client, experiment, name)
        study = study_of(root, name, params.seed)
        parent = _open_run(client, "", f"search-{name}", experiment)
        status = "KILLED"
        try:
            Search(root, space, study, client, parent, minutes * 60.0).run(trials)
            status = "FINISHED"
        finally:
            client.set_terminated(parent, status=status)
    return _found(study, parent)


def clear(root: Path, client: MlflowClient, experiment: str, name: str) -> None:
    """Close as killed what searches that are dead left open in MLflow; forget trials of other studies than `name`.

    Only the holder of the search's lock may call it: every run of a search that is still open is then nobody's.
    """
    for run in client.search_runs([experiment], "tags.reason = 'search' and attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, status="KILLED")
    for folder in (root / FOLDER).glob("sft-*"):
        if folder.name != name:
            shutil.rmtree(folder)


def _open_run(client: MlflowClient, parent: str, name: str, experiment: str = "", **tags: str) -> str:
    """A run in MLflow, below the parent where there is one."""
    own = {"reason": "search", **tags} | ({"mlflow.parentRunId": parent} if parent else {})
    where = experiment or client.get_run(parent).info.experiment_id
    return str(client.create_run(where, run_name=name, tags=own).info.run_id)


def _fits(root: Path, trial: optuna.Trial, changes: dict[str, Any], left: float) -> None:
    import optuna

    try:
        found = estimate_all.estimate(root, "sft", "known", changes)["stages"][0]
    except (KeyError, SettingsError) as error:
        raise SearchError(f"trial {trial.number}: params.yaml does not take these settings: {error}") from None
    seconds = found["time"]["seconds"]
    trial.set_user_attr("estimated_seconds", seconds)
    if not found["fits"] or seconds > left:
        raise optuna.TrialPruned(
            "; ".join(found["reasons"]) or f"it would take {seconds:.0f} s, and {left:.0f} s of the budget are left"
        )


def _train(root: Path, folder: Path, changes: dict[str, Any], run_id: str) -> float:
    """Run the stage in a repository of its own; its curves go to the trial's MLflow run."""
    link_copy(root, folder, changes, keep_trained=False)
    environment = layout.child_environment(
        PYTHONPATH=str(Path(__file__).parent.parent), MLFLOW_RUN_ID=run_id, MLFLOW_TRACKING_URI=tracking_uri(root)
    )
    command = [sys.executable, "-m", "tasks.train.sft.stage"]
    process = start(command, grace=GRACE_SECONDS, cwd=folder, env=environment, out=subprocess.PIPE)
    try:
        # communicate() would close standard input, and a supervisor whose input closes ends what it runs.
        output = process.stdout.read() if process.stdout else b""
        process.wait()
    finally:
        stop(process)
    if process.returncode:
        words = output.decode("utf-8", errors="replace").strip()
        raise SearchError(f"the training failed: {words[-2000:]}")
    metrics = json.loads((folder / layout.DETAILS / "sft.json").read_text(encoding="utf-8"))
    if "validation_loss" not in metrics:
        raise SearchError("there are no validation examples to judge by: set mix.validation_share above 0")
    return float(metrics["validation_loss"])


def _tell(text: str) -> None:
    """Beside the answer, which may be JSON."""
    print(text, file=sys.stderr, flush=True)


def _found(study: optuna.Study, parent: str) -> dict[str, Any]:
    if all(trial.value is None for trial in study.trials):
        raise SearchError("no trial ended with a loss; give the search more minutes, or a space that fits here")
    best = study.best_trial
    return {
        "study": study.study_name,
        "mlflow_run_id": parent,
        "best": {"settings": best.params, "validation_loss": best.value, "trial": best.number},
        "trials": [
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                "settings": trial.params,
                "validation_loss": trial.value,
                "seconds": round(trial.user_attrs.get("seconds", 0.0), 1),
                "estimated_seconds": trial.user_attrs.get("estimated_seconds"),
            }
            for trial in study.trials
        ],
    }
