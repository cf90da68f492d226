"""Carrying a training out: what is tried again and what is not, with workers that only pretend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_json
from tasks.core.params import load_params
from tasks.train.entry import training as module
from tasks.train.entry.training import CannotFit, execute, preflight, run_folder
from tasks.train.run.checkpoints import REFUSED, mark_complete
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import LaunchError
from tasks.train.sft.stage import describe


@pytest.fixture
def job(workspace: Any) -> TrainingJob:
    """Eleven examples, four in each of two processes a step: two steps an epoch, four in all."""
    workspace(batch_size=4, epochs=2, save_every=2, max_restarts=2)
    return describe(load_params(), load_domain("construction"))


class Workers:
    """In place of the launch: what each attempt does, in order; remembers the checkpoints they began from."""

    def __init__(self, run: Path, *attempts: str) -> None:
        self.run, self.attempts, self.began = run, list(attempts), list[str]()

    def __call__(self, name: str, worker: str, arguments: list[str], look: Any) -> None:
        self.began.append(Path(arguments[2]).name if len(arguments) > 2 else "start")
        attempt = self.attempts.pop(0)
        assert look() is None
        if attempt == "ends":
            self._folder("final")
        elif attempt == "refuses":
            (self.run / REFUSED).write_text("the data is bad")
            raise LaunchError("refused")
        elif attempt != "ends with nothing":
            if attempt.startswith("saves"):
                self._folder("checkpoint-" + attempt.split()[1])
            raise LaunchError("a worker died")

    def _folder(self, name: str) -> None:
        write_json(
            self.run / name / "result.json", {"steps": 8, "tokens": 9, "trainable_parameters": 1, "parameters": 2}
        )
        mark_complete(self.run / name)


@pytest.fixture
def workers(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> Any:
    def build(*attempts: str) -> Workers:
        built = Workers(run_folder(job), *attempts)
        monkeypatch.setattr(module, "launch", built)
        monkeypatch.setattr("tasks.train.run.costs.energy_meter", lambda keep: keep(0.5))
        return built

    return build


def test_a_run_that_loses_its_processes_goes_on_from_its_last_checkpoint(
    job: TrainingJob, workers: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    used = workers("saves 2", "saves 4", "ends")
    assert execute(job, run_folder(job)) == run_folder(job) / "final"
    assert used.began == ["start", "checkpoint-2", "checkpoint-4"]
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("sft: 4 steps, about ")
    assert said[1:] == [
        "sft: a worker died; going on from its last checkpoint (1 of 2)",
        "sft: a worker died; going on from its last checkpoint (2 of 2)",
    ]
    measured = json.loads(Path(".flywheel/measured/sft.json").read_text())
    assert (measured["attempts"], measured["steps"], measured["tokens"]) == (3, 8, 9)


def test_it_is_tried_again_a_bounded_number_of_times(job: TrainingJob, workers: Any) -> None:
    used = workers("dies", "dies", "dies", "ends")
    with pytest.raises(LaunchError, match="a worker died"):
        execute(job, run_folder(job))
    assert used.began == ["start"] * 3


def test_what_a_worker_refuses_is_not_tried_again(job: TrainingJob, workers: Any) -> None:
    used = workers("refuses", "ends")
    with pytest.raises(LaunchError, match="refused"):
        execute(job, run_folder(job))
    assert used.began == ["start"]


def test_workers_that_end_well_with_nothing_to_show_are_an_error(job: TrainingJob, workers: Any) -> None:
    workers("ends with nothing")
    with pytest.raises(LaunchError, match="without a result"):
        execute(job, run_folder(job))


def test_a_run_that_has_ended_is_not_run_again(job: TrainingJob, workers: Any) -> None:
    workers("ends")
    first = execute(job, run_folder(job))
    used = workers()
    assert execute(job, run_folder(job)) == first and used.began == []


def test_what_cannot_fit_is_refused_before_it_starts_and_what_would_fit_is_said(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.train.sizing.estimate.free_memory", lambda: 1 << 30)
    with pytest.raises(CannotFit, match=r"sft cannot run here: it needs .* of main memory.*What would fit: .*NVIDIA"):
        preflight(job)
    assert json.loads((layout.MEASURED / "sft.predicted.json").read_text())["fits"] is False


def test_what_fits_is_predicted_and_kept(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tasks.train.sizing.estimate.free_memory", lambda: 1 << 40)
    preflight(job)
    kept = json.loads((layout.MEASURED / "sft.predicted.json").read_text())
    assert kept["fits"] and kept["would_fit"] == [] and kept["time"]["source"] == "formula"
    assert " steps, about " in capsys.readouterr().out
