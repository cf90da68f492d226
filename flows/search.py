"""A search for better settings of supervised fine-tuning: Optuna's sampler, one training a trial, within a budget.

Each trial trains in a copy of the repository made of links (tasks/train/linked_copy.py), by the stage's own module,
and is judged by its loss on mix's validation examples; no evaluation item is looked at. It is a child run in MLflow,
with its curves, under one parent a search. The study lies in .flywheel/search: a search that was stopped or killed
takes its training with it and goes on where it was; the trial that died is tried again, from its last checkpoint, and
its MLflow run is closed as killed. Before a trial starts, the estimate says what it will take: one that does not fit
into what is left of the budget, or into memory, is pruned.
Limits: one trial at a time; params.yaml is not changed, the best settings are printed for a person to take over.
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

    def draw(self, trial: optuna.Trial, name: str) -> int | float:
        """A number for the setting of this name."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


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
    return {
        name: trial.suggest_categorical(name, of) if isinstance(of, list) else of.draw(trial, name)
        for name, of in space.items()
    }


@dataclass
class Budget:
    """Seconds that may be spent, and those that trials were given so far (kept with the study)."""

    seconds: float
    spent: float = 0.0

    @property
    def left(self) -> float:
        """Seconds."""
        return max(0.0, self.seconds - self.spent)


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

    One SQLite file; the sampler's draws depend on the seed and on the number of trials there are.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=_storage(root), study_name=name, load_if_exists=True, direction="minimize")
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _storage(root: Path) -> str:
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(root / FOLDER / 'studies.db').absolute()}"


def close_dead(root: Path, client: MlflowClient, name: str) -> None:
    """Close as killed what searches that are dead left open in MLflow; forget trials of other studies than `name`.

    Only the holder of the search's lock may call it: every run that is still open here is then nobody's.
    """
    import optuna

    for known in optuna.get_all_study_names(_storage(root)):
        study = optuna.load_study(study_name=known, storage=_storage(root))
        running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        for attributes in (study.user_attrs, *(trial.user_attrs for trial in running)):
            run = attributes.get("mlflow_run_id")
            if run and client.get_run(run).info.status == "RUNNING":
                client.set_terminated(run, status="KILLED")
    for folder in (root / FOLDER).glob("sft-*"):
        if not folder.name.startswith(name):
            shutil.rmtree(folder)


def search(root: Path, space: Space, trials: int, minutes: float) -> dict[str, Any]:
    """Try settings until so many trials have ended or the budget is spent; returns the best, and all of them.

    Raises:
        SearchError: no trial ended with a loss.
    """
    with one_at_a_time(root, _tell, "search"):
        return _search(root, space, trials, minutes)


def _search(root: Path, space: Space, trials: int, minutes: float) -> dict[str, Any]:
    import optuna

    params, client = load_params(root / layout.PARAMS), connect(root)
    name = study_name(root, space)
    close_dead(root, client, name)
    study = study_of(root, name, params.seed)
    parent = _parent(client, root, params.domain, study)
    budget = Budget(minutes * 60.0, sum(trial.user_attrs.get("seconds", 0.0) for trial in study.trials))

    def objective(trial: optuna.Trial) -> float:
        return _try(root, client, parent, trial, drawn(trial, space), budget)

    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    status = "KILLED"
    try:
        while budget.left > 0 and len(study.get_trials(deepcopy=False, states=done)) < trials:
            study.optimize(objective, n_trials=1, catch=(SearchError,))
            _say(study.trials[-1])
            if _hopeless(study):
                break
        status = "FINISHED"
    finally:
        client.set_terminated(parent, status=status)
    return _found(study, parent)


def _hopeless(study: optuna.Study, most: int = 5) -> bool:
    """Whether the last trials were all pruned or failed: then no other settings fit either."""
    import optuna

    last = study.trials[-most:]
    return len(last) == most and all(trial.state != optuna.trial.TrialState.COMPLETE for trial in last)


def _try(
    root: Path, client: MlflowClient, parent: str, trial: optuna.Trial, changes: dict[str, Any], budget: Budget
) -> float:
    """Train with these settings as a child run; returns the validation loss, in nats a token.

    Raises:
        SearchError: the settings are refused, or the training failed.
        TrialPruned: it would not fit into memory or what is left of the budget.
    """
    import optuna

    folder = (root / FOLDER / f"{trial.study.study_name}-{digest_of(changes)[:12]}").absolute()
    child = _child(client, parent, trial.number, changes)
    trial.set_user_attr("mlflow_run_id", child)
    began, status = time.monotonic(), "KILLED"
    try:
        _fits(root, folder, trial, changes, budget)
        loss = _train(root, folder, changes, child)
        client.log_metric(child, "validation_loss", loss)
        status = "FINISHED"
    except Exception as error:  # what ends the search itself is none: then the folder stays, with its checkpoints
        status = "KILLED" if isinstance(error, optuna.TrialPruned) else "FAILED"
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        took = time.monotonic() - began
        budget.spent += took
        trial.set_user_attr("seconds", took)
        client.set_terminated(child, status=status)
    shutil.rmtree(folder, ignore_errors=True)
    return loss


def _fits(root: Path, folder: Path, trial: optuna.Trial, changes: dict[str, Any], budget: Budget) -> None:
    import optuna

    try:
        found = estimate_all.estimate(root, "sft", "known", changes)["stages"][0]
    except (KeyError, SettingsError) as error:
        raise SearchError(f"trial {trial.number}: params.yaml does not take these settings: {error}") from None
    trial.set_user_attr("estimated_seconds", found["time"]["seconds"])
    if not found["fits"]:
        raise optuna.TrialPruned("; ".join(found["reasons"]))
    if found["time"]["seconds"] > budget.left:
        raise optuna.TrialPruned(
            f"it would take {found['time']['seconds']:.0f} s, and {budget.left:.0f} s of the budget are left"
        )


def _train(root: Path, folder: Path, changes: dict[str, Any], run_id: str) -> float:
    """Run the stage in a repository of its own; its curves go to the trial's MLflow run."""
    link_copy(root, folder, changes, keep_trained=False)
    environment = layout.child_environment(
        PYTHONPATH=str(Path(__file__).parent.parent), MLFLOW_RUN_ID=run_id, MLFLOW_TRACKING_URI=tracking_uri(root)
    )
    status, said = run_owned([sys.executable, "-m", "tasks.train.sft.stage"], folder, environment)
    if status:
        raise SearchError(f"the training failed: {said.strip()[-2000:]}")
    metrics = json.loads((folder / layout.DETAILS / "sft.json").read_text(encoding="utf-8"))
    if "validation_loss" not in metrics:
        raise SearchError("there are no validation examples to judge by: set mix.validation_share above 0")
    return float(metrics["validation_loss"])


def run_owned(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command that ends, with all it started, when this process does, even by kill -9 (tasks/core/supervise.py).

    Returns its exit status and all it said.
    """
    process = start(command, grace=GRACE_SECONDS, cwd=folder, env=environment, out=subprocess.PIPE)
    try:
        said = process.stdout.read() if process.stdout else b""
        return process.wait(), said.decode("utf-8", errors="replace")
    finally:
        stop(process)


def _parent(client: MlflowClient, root: Path, domain: str, study: optuna.Study) -> str:
    """The search's own MLflow run, the same one when it goes on."""
    if known := study.user_attrs.get("mlflow_run_id"):
        client.update_run(known, status="RUNNING")
        return str(known)
    tags = {"domain": domain, "study": study.study_name, "reason": "search"}
    run = client.create_run(experiment_id(client, root, domain), run_name=f"search-{study.study_name}", tags=tags)
    study.set_user_attr("mlflow_run_id", run.info.run_id)
    return str(run.info.run_id)


def _child(client: MlflowClient, parent: str, number: int, changes: dict[str, Any]) -> str:
    experiment = client.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent, "trial": str(number)}
    run = client.create_run(experiment, run_name=f"trial-{number}", tags=tags)
    for name, value in changes.items():
        client.log_param(run.info.run_id, name, value)
    return str(run.info.run_id)


def _tell(text: str) -> None:
    """Beside the answer, which may be JSON."""
    print(text, file=sys.stderr, flush=True)


def _say(trial: optuna.trial.FrozenTrial) -> None:
    settings = ", ".join(f"{name}={value}" for name, value in trial.params.items())
    outcome = f"validation loss {trial.value:.4f}" if trial.value is not None else trial.state.name.lower()
    _tell(f"trial {trial.number}: {outcome}, {trial.user_attrs.get('seconds', 0):.0f} s; {settings}")


def _found(study: optuna.Study, parent: str) -> dict[str, Any]:
    import optuna

    ended = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if not ended:
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
