"""The memory of a search: one Optuna study for all trials whose losses compare, and what dead searches left open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from flows.search_space import Space, plain
from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient

FOLDER = layout.HOME / "search"


class SearchError(FlywheelError):
    """The search cannot go on; the message says why."""


def study_name(root: Path, space: Space) -> str:
    """One study for one space over the same other settings, data, base, start and code: their losses compare."""
    from tasks.core.domain import load_domain
    from tasks.core.params import load_params
    from tasks.train.aside import inside, lay_aside
    from tasks.train.sft.stage import describe

    with inside(lay_aside(root, (root / FOLDER / "settings").absolute(), {}, keep_trained=False)):
        params = load_params()
        try:
            job = describe(params, load_domain(params.domain))
            return f"sft-{digest_of([plain(space), params.domain, job.digest()])[:16]}"
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
