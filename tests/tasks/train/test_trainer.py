"""The trainer's callbacks: order after a resume, a stop at NaN, what a person sees."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.train.batches import PlannedBatches


@pytest.fixture(scope="module")
def trainer() -> Any:
    """Imported here, because it brings torch and trl along."""
    from tasks.train import trainer

    return trainer


def a_state(step: int = 0, last: int = 100, epoch: float | None = None, first_process: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=last, epoch=epoch, is_world_process_zero=first_process)


@pytest.mark.parametrize("reached, epoch", [(None, 0), (0, 0), (1.0, 1), (1.375, 1), (2.0, 2)])
def test_a_run_that_goes_on_reads_the_order_of_its_epoch(trainer: Any, reached: float | None, epoch: int) -> None:
    batches = PlannedBatches([1, 2, 3, 4], 1, 2, 0, seed=0)
    trainer._NextEpoch(batches).on_epoch_begin(None, a_state(epoch=reached), None)
    assert batches.epoch == epoch


@pytest.mark.parametrize("logs", [{"loss": float("nan")}, {"eval_loss": float("inf")}])
def test_a_loss_that_is_no_number_stops_the_run(trainer: Any, logs: dict[str, float]) -> None:
    with pytest.raises(trainer.TrainingDiverged, match=r"at step 7; lower sft\.learning_rate"):
        trainer.StopAtNan().on_log(None, a_state(7), None, logs)


def test_a_finite_loss_does_not_stop_the_run(trainer: Any) -> None:
    trainer.StopAtNan().on_log(None, a_state(7), None, {"loss": 2.0, "grad_norm": float("nan")})


@pytest.fixture
def ten_steps(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Ten steps of 50 tokens, from step 20 on, in 5 seconds: 100 tokens a second."""

    def run(state: Any) -> None:
        now = [100.0]
        monkeypatch.setattr(trainer.time, "monotonic", lambda: now[0])
        progress = trainer.Progress(tokens_per_step=50)
        progress.on_step_begin(None, a_state(20), None)
        now[0] += 5
        progress.on_log(None, state, None, {"loss": 1.5})

    return run


def test_progress_says_step_loss_speed_and_time_left(ten_steps: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """70 steps are left at 2 a second: 35 seconds."""
    ten_steps(a_state(30))
    assert capsys.readouterr().out == "sft: step 30 of 100, loss 1.5000, 100 tokens/s, 0:35 left\n"


def test_on_a_terminal_progress_is_a_bar_on_one_line(
    ten_steps: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ten_steps(a_state(30))
    said = capsys.readouterr().out
    assert said.startswith("\r\033[K[######              ] sft: step 30 of 100") and not said.endswith("\n")


def test_only_the_first_process_speaks(ten_steps: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ten_steps(a_state(30, first_process=False))
    assert capsys.readouterr().out == ""
