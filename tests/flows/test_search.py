"""The search for settings: what it draws, how it keeps to its budget, how it goes on, what MLflow shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import search as subject
from flows.search import Budget, Range, SearchError, read_space, search, study_of
from tasks.records import make_example
from tasks.settings import SettingsError
from tests.training import lay_training

SPACE: dict[str, Any] = {"sft.learning_rate": Range(low=1e-4, high=1e-2, log=True), "sft.batch_size": [2, 4]}


@pytest.fixture
def home(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings and two data files; training and sizing are played."""
    (tmp_path / "data/mix").mkdir(parents=True)
    (tmp_path / "infra").symlink_to(root / "infra")
    (tmp_path / "params.yaml").write_text((root / "params.yaml").read_text())
    for name in ("train", "validation"):
        (tmp_path / f"data/mix/{name}.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subject, "_fits", lambda *_: None)
    monkeypatch.setattr(subject, "_train", lambda root, folder, changes, run: changes["sft.learning_rate"] * 100)
    return tmp_path


def test_every_trial_is_a_child_run_with_its_settings_and_loss(home: Path) -> None:
    found = search(home, SPACE, trials=3, minutes=1.0)
    from tasks.registry.runs import connect

    client = connect(home)
    parent = client.get_run(found["mlflow_run_id"])
    children = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", order_by=["start_time"]
    )
    losses = sorted(run.data.metrics["validation_loss"] for run in children)
    assert losses == sorted(trial["validation_loss"] for trial in found["trials"])
    assert found["best"]["validation_loss"] == losses[0]
    assert all(float(run.data.params["sft.learning_rate"]) * 100 in losses for run in children)
    assert parent.info.status == "FINISHED"

    again = search(home, SPACE, trials=4, minutes=1.0)
    assert (again["study"], again["mlflow_run_id"]) == (found["study"], found["mlflow_run_id"])
    assert again["trials"][:3] == found["trials"] and len(again["trials"]) == 4


def test_a_trial_that_a_kill_left_running_is_tried_again(home: Path) -> None:
    study = study_of(home, "s", 1)
    dead = study.ask()
    settings = subject.drawn(dead, SPACE)
    study = study_of(home, "s", 1)
    assert study.trials[0].state.name == "FAIL"
    assert subject.drawn(study.ask(), SPACE) == settings


def test_a_spent_budget_ends_the_search(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each training takes 40 s of a minute: the second one ends it."""
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(subject.time, "monotonic", lambda: float(next(clock)))
    assert len(search(home, SPACE, trials=10, minutes=1.0)["trials"]) == 2


def test_settings_that_never_fit_end_the_search_with_a_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    def too_big(*_: Any) -> None:
        raise optuna.TrialPruned("too big")

    monkeypatch.setattr(subject, "_fits", too_big)
    with pytest.raises(SearchError, match="no trial ended with a loss"):
        search(home, SPACE, trials=10, minutes=1.0)


def test_a_trial_longer_than_what_is_left_is_pruned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import optuna

    from tasks.train.sizing import estimate_all

    row = {"time": {"seconds": 50.0}, "fits": True, "reasons": []}
    monkeypatch.setattr(estimate_all, "estimate", lambda *_: {"stages": [row]})
    trial = optuna.create_study().ask()
    subject._fits(tmp_path, tmp_path, trial, {}, Budget(60.0))
    with pytest.raises(optuna.TrialPruned, match="50 s, and 20 s of the budget are left"):
        subject._fits(tmp_path, tmp_path, trial, {}, Budget(60.0, spent=40.0))


def test_the_space_is_read_and_its_mistakes_are_named(root: Path, tmp_path: Path) -> None:
    space = read_space(root / "infra/search.yaml")
    assert space["methods.lora.rank"] == [4, 8, 16]
    (tmp_path / "space.yaml").write_text("a: {low: 2, high: 1}\nb: []\n")
    with pytest.raises(SettingsError, match="low must be below high"):
        read_space(tmp_path / "space.yaml")


@pytest.mark.slow
def test_a_real_trial_trains_beside_the_checkout_and_logs_its_curve(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Two processes on a two-layer model; nothing is written where the stages write."""
    from tasks.registry.runs import connect

    examples = [
        make_example(
            instruction=f"What is rule {i}?", output=f"Rule {i}.", language="en", origin="human", source=("t",)
        )
        for i in range(6)
    ]
    home = lay_training(tmp_path, root, tiny_model, examples[:4], examples[4:], {"epochs": 1})
    found = search(home, {"sft.learning_rate": [1e-3]}, trials=1, minutes=20.0)
    assert found["trials"][0]["state"] == "complete"
    assert not (home / "models/sft").exists() and not list((home / ".flywheel/search").glob("sft-*"))
    run = connect(home).search_runs(
        [connect(home).get_run(found["mlflow_run_id"]).info.experiment_id], "tags.trial = '0'"
    )
    assert "loss" in run[0].data.metrics and "validation_loss" in run[0].data.metrics
