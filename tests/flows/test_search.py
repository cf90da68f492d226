"""The search for settings: what it draws, how it keeps to its budget, how it goes on, what MLflow shows of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from flows import search as subject
from flows.search import FOLDER, Range, SearchError, clear, drawn, read_space, search, study_name, study_of
from tasks.core.files import write_json, write_manifest
from tasks.core.records import make_example
from tasks.core.settings import SettingsError
from tasks.registry.runs import connect, experiment_id
from tests.mlflow_store import lay_mlflow
from tests.training import lay_training

SPACE: dict[str, Any] = {"sft.learning_rate": Range(low=1e-4, high=1e-2, log=True), "sft.batch_size": [2, 4]}


@pytest.fixture(autouse=True)
def a_store_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow leaves the address of the store of the test before in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def home(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings, data and a base model by name only; training and sizing are played."""
    base = tmp_path / "base"
    write_json(base / "config.json", {})
    write_manifest(base)
    home = lay_mlflow(lay_training(tmp_path / "home", root, base, [], [], {}))
    monkeypatch.chdir(home)
    monkeypatch.setattr(subject, "_fits", lambda *_: None)
    monkeypatch.setattr(subject, "_train", lambda root, folder, changes, run: changes["sft.learning_rate"] * 100)
    return home


def test_every_trial_is_a_child_run_with_its_settings_and_loss(home: Path) -> None:
    found = search(home, SPACE, trials=3, minutes=1.0)
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
    assert again["study"] == found["study"]
    assert again["trials"][:3] == found["trials"] and len(again["trials"]) == 4


def test_a_stopped_trial_goes_on_in_its_folder_and_its_run_is_closed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while it trains: what it wrote is there the next time, the same settings come first, no run stays open.

    Every kill leaves what a stop leaves, and open runs besides: those are laid by hand.
    """

    def stopped(root: Path, folder: Path, changes: dict[str, Any], run: str) -> float:
        (folder / "checkpoint").mkdir(parents=True)
        sys.exit(143)

    monkeypatch.setattr(subject, "_train", stopped)
    with pytest.raises(SystemExit):
        search(home, SPACE, trials=1, minutes=1.0)
    client, dead = connect(home), study_of(home, study_name(home, SPACE), 1).trials[0]
    experiment = experiment_id(client, home, "construction")
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED"] * 2
    open_run = client.create_run(experiment, tags={"reason": "search"}).info.run_id
    (home / FOLDER / "sft-other/models").mkdir(parents=True)

    found: list[bool] = []

    def trained(root: Path, folder: Path, changes: dict[str, Any], run: str) -> float:
        found.append((folder / "checkpoint").is_dir())
        return 1.0

    monkeypatch.setattr(subject, "_train", trained)
    ended = search(home, SPACE, trials=1, minutes=1.0)
    assert found == [True] and not list((home / FOLDER).glob("sft-*"))
    assert [row["state"] for row in ended["trials"]] == ["fail", "complete"]
    assert ended["best"]["settings"] == dead.params
    assert client.get_run(open_run).info.status == "KILLED"


def test_a_release_at_work_is_left_open(home: Path) -> None:
    client = connect(home)
    experiment = experiment_id(client, home, "construction")
    release = client.create_run(experiment, tags={"reason": "manual"}).info.run_id
    clear(home, client, experiment, "sft-mine")
    assert client.get_run(release).info.status == "RUNNING"


@pytest.mark.parametrize("what", ["data/base_model", "data/start", "models/pretrain/none"])
def test_other_data_base_or_start_is_another_study(home: Path, what: str) -> None:
    before = study_name(home, SPACE)
    assert study_name(home, SPACE) == before
    if what == "models/pretrain/none":  # an adapter to begin from where there was none
        shutil.rmtree(home / what)
        what = "models/pretrain/adapter"
        write_json(home / what / "adapter_config.json", {})
        write_json(home / what / "adapter_model.safetensors", {})
    elif what == "data/start":  # an earlier version's adapter
        write_json(home / what / "adapter/adapter_config.json", {})
        write_json(home / what / "adapter/adapter_model.safetensors", {})
    else:
        write_json(home / what / "config.json", {"other": True})
    write_manifest(home / what)
    changed = study_name(home, SPACE)
    assert changed != before
    (home / "data/mix/train.jsonl").write_text("{}\n")
    assert study_name(home, SPACE) not in (before, changed)


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

    from tasks.train import estimate_all

    row = {"time": {"seconds": 50.0}, "fits": True, "reasons": []}
    monkeypatch.setattr(estimate_all, "estimate", lambda *_: {"stages": [row]})
    trial = optuna.create_study().ask()
    subject._fits(tmp_path, trial, {}, 60.0)
    with pytest.raises(optuna.TrialPruned, match="50 s, and 20 s of the budget are left"):
        subject._fits(tmp_path, trial, {}, 20.0)


def test_whole_numbers_are_drawn_whole_by_orders_of_magnitude_too() -> None:
    """A rank is an integer whatever scale it is drawn on; a share that is written with a point is none."""
    import optuna

    space: dict[str, Any] = {
        "rank": Range(low=4, high=64, log=True),
        "epochs": Range(low=1, high=3),
        "share": Range(low=0.0, high=1.0),
    }
    trials = [drawn(trial, space) for trial in (optuna.create_study().ask() for _ in range(20))]
    kinds = [{name: type(value) for name, value in found.items()} for found in trials]
    assert kinds == [{"rank": int, "epochs": int, "share": float}] * 20
    assert len({found["share"] for found in trials}) == 20


def test_the_space_is_read_and_its_mistakes_are_named(root: Path, tmp_path: Path) -> None:
    space = read_space(root / "infra/search.yaml")
    assert space["methods.lora.rank"] == [4, 8, 16]
    assert isinstance(space["sft.epochs"], Range) and isinstance(space["sft.epochs"].low, int)
    (tmp_path / "space.yaml").write_text("a: {low: 2, high: 1}\nb: []\n")
    with pytest.raises(SettingsError, match="low must be below high"):
        read_space(tmp_path / "space.yaml")


@pytest.mark.slow
def test_a_real_trial_trains_beside_the_checkout_and_logs_its_curve(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Two processes on a two-layer model; nothing is written where the stages write."""
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
