"""The MLflow run of a release, against a real tracking store in SQLite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.registry import runs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_a_run_left_open_by_a_crash_is_taken_up_again_and_others_are_closed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    client = runs.connect(home)
    stale = runs.open_run(client, home, "crash", "old inputs", "test")
    first = runs.open_run(client, home, "crash", "inputs", "test")
    again = runs.open_run(client, home, "crash", "inputs", "test")
    assert again == first != stale
    assert client.get_run(stale).info.status == "KILLED"
    runs.close_run(client, first, "FINISHED")
    assert runs.open_run(client, home, "crash", "inputs", "test") != first


def test_params_metrics_and_files_are_kept(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter the trainer logged itself keeps its value: MLflow refuses to change one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("metrics", "details"):
        (tmp_path / "reports" / name).mkdir(parents=True)
    (tmp_path / "models/package").mkdir(parents=True)
    (tmp_path / "models/package/weights").write_text("w")
    (tmp_path / "params.yaml").write_text("seed: 1\nsft: {rank: 8, modules: [a, b]}\n")
    (tmp_path / "reports/metrics/sft.json").write_text('{"loss": 2.5}')
    (tmp_path / "reports/details/sft.json").write_text('{"ok": true, "by": {"train": 1}}')
    (tmp_path / "reports/usage.json").write_text('{"champion": {"version": "1", "answers": 3, "stars": null}}')
    criteria = [{"name": "domain rouge", "estimate": 0.5, "low": 0.25, "high": 0.75, "margin": None, "n": 4}]
    (tmp_path / "reports/verdict.json").write_text(json.dumps({"criteria": criteria, "reported": criteria}))
    client = runs.connect(home)
    run_id = runs.open_run(client, home, "filled", "inputs", "test")
    client.log_param(run_id, "seed", "the trainer's")
    runs.log_params(client, run_id, tmp_path / "params.yaml")
    runs.log_metrics(client, run_id, tmp_path / "reports")
    runs.log_files(client, run_id, tmp_path)
    data = client.get_run(run_id).data
    assert data.params == {"seed": "the trainer's", "sft.rank": "8", "sft.modules": '["a", "b"]'}
    figures = {"sft.loss": 2.5, "sft.by.train": 1.0, "usage.champion.answers": 3.0}
    rouge = {"estimate": 0.5, "low": 0.25, "high": 0.75, "n": 4.0}
    assert data.metrics == figures | {
        f"{part}.domain rouge.{key}": value for part in ("verdict", "reported") for key, value in rouge.items()
    }
    assert {item.path for item in client.list_artifacts(run_id)} == {
        "package",
        "params.yaml",
        "reports",
        "verdict.json",
    }
