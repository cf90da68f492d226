"""The callbacks of every trainer: a stop at NaN, room for a checkpoint, what a person sees, the live curve."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.train.run import callbacks
from tasks.train.run.checkpoints import DiskFull, is_complete


def a_state(step: int = 0, last: int = 100, first_process: bool = True, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=last, is_world_process_zero=first_process, **more)


@pytest.mark.parametrize("logs", [{"loss": float("nan")}, {"eval_loss": float("inf")}])
def test_only_a_loss_that_is_no_number_stops_the_run(logs: dict[str, float]) -> None:
    with pytest.raises(callbacks.TrainingDiverged, match=r"at step 7; lower sft\.learning_rate"):
        callbacks.StopAtNan("sft").on_log(None, a_state(7), None, logs)
    callbacks.StopAtNan("sft").on_log(None, a_state(7), None, {"loss": 2.0, "grad_norm": float("nan")})


@pytest.fixture
def ten_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Ten steps, from step 20 on, in 5 seconds; with 50 tokens a step, 100 tokens a second."""

    def run(state: Any, logs: dict[str, float], tokens: float | None = 50) -> None:
        now = [100.0]
        monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
        progress = callbacks.Progress("sft", tokens)
        progress.on_step_begin(None, a_state(20), None)
        now[0] += 5
        progress.on_log(None, state, None, logs)

    return run


@pytest.mark.parametrize(
    ("last", "logs", "tokens", "line"),
    [
        (100, {"loss": 1.5, "grad_norm": 9.0}, 50, "step 30 of 100, loss 1.5000, 100 tokens/s, 0:35 left"),
        (
            10000,
            {"reward": 0.25, "kl": 2.0},
            None,
            "step 30 of 10000, reward 0.2500, kl 2.0000, 120.0 steps/min, 1:23:05 left",
        ),
    ],
)
def test_progress_says_step_figures_speed_and_time_left(
    ten_steps: Any, capsys: pytest.CaptureFixture[str], last: int, logs: Any, tokens: int | None, line: str
) -> None:
    """2 steps a second, 120 a minute: 70 are left for 35 seconds, 9970 for 4985; with tokens, or without."""
    ten_steps(a_state(30, last=last), logs, tokens=tokens)
    assert capsys.readouterr().out == f"sft: {line}\n"


def test_a_trainer_that_logs_nothing_has_progress_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps in 2 seconds: one a second, 98 to go."""
    now = [100.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    progress = callbacks.Progress("reward")
    for step in range(3):
        progress.on_step_begin(None, a_state(step), None)
        now[0] += 1
    assert capsys.readouterr().out == "reward: step 1 of 100, 60.0 steps/min, 1:39 left\n"


@pytest.mark.parametrize("logs", [{"eval_accuracy": 0.5}, {"train_runtime": 9.0, "loss": 1.0}, {}])
def test_what_is_no_step_draws_no_step(ten_steps: Any, capsys: pytest.CaptureFixture[str], logs: Any) -> None:
    ten_steps(a_state(30), logs)
    assert capsys.readouterr().out == ""


def test_on_a_terminal_progress_is_a_bar_on_one_line(
    ten_steps: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ten_steps(a_state(30), {"loss": 1.5})
    said = capsys.readouterr().out
    assert said.startswith("\r\033[K[######              ] sft: step 30 of 100") and not said.endswith("\n")


def test_only_the_first_process_speaks_and_draws(
    ten_steps: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ten_steps(a_state(30, first_process=False), {"loss": 1.5})
    ten_steps(a_state(30, first_process=False), {"eval_loss": 1.5})
    assert capsys.readouterr().out == ""
    plot = callbacks.LivePlot(tmp_path / "loss.csv", render)
    state = a_state(first_process=False, log_history=[{"step": 1, "loss": 2.0}])
    plot.on_log(None, state, None)
    plot.on_train_end(None, state, None)
    assert not (tmp_path / "loss.csv").exists()


def render(history: list[dict[str, Any]]) -> str:
    return "step,loss\n" + "".join(f"{entry['step']},{entry['loss']}\n" for entry in history)


def test_the_curve_is_drawn_while_the_run_goes_on_and_whole_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first log, not again a second later, again after five, and at the end."""
    now = [100.0]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    plot = callbacks.LivePlot(tmp_path / "plots/loss.csv", render)
    state = a_state(log_history=[])
    drawn = []
    for second in (0, 1, 5):
        now[0] = 100.0 + second
        state.log_history.append({"step": second, "loss": 2.0})
        plot.on_log(None, state, None)
        drawn.append((tmp_path / "plots/loss.csv").read_text().count("\n") - 1)
    state.log_history.append({"step": 6, "loss": 1.0})
    plot.on_train_end(None, state, None)
    drawn.append((tmp_path / "plots/loss.csv").read_text().count("\n") - 1)
    assert drawn == [1, 1, 3, 4]


def a_run(tmp_path: Path) -> tuple[Any, Path]:
    """A run of one process with a checkpoint of 1000 bytes that is not marked yet."""
    folder = tmp_path / "checkpoint-2"
    folder.mkdir()
    (folder / "weights").write_bytes(b"w" * 1000)
    return SimpleNamespace(output_dir=str(tmp_path), world_size=1), folder


def test_a_saved_checkpoint_is_marked_and_the_beat_knows_of_it(tmp_path: Path, noted: dict[str, Any]) -> None:
    arguments, folder = a_run(tmp_path)
    mark = callbacks.MarkCheckpoints()
    mark.on_train_begin(arguments, a_state(), None)
    mark.on_step_end(arguments, a_state(1), SimpleNamespace(should_save=False))
    assert (noted["phase"], noted["step"], noted["steps"], noted["moves"]) == ("training", 1, 100, 2)
    mark.on_step_end(arguments, a_state(2), SimpleNamespace(should_save=True))
    assert (noted["phase"], noted["step"]) == ("saving", 2) and not is_complete(folder)
    mark.on_save(arguments, a_state(2), None)
    assert (noted["phase"], noted["step"]) == ("training", 2) and is_complete(folder)
    mark.on_train_end(arguments, a_state(2), None)
    assert noted["phase"] == "ending"


@pytest.mark.parametrize("free, enough", [(1499, False), (1500, True)])
def test_a_checkpoint_is_begun_only_where_there_is_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: Any, free: int, enough: bool
) -> None:
    """One and a half times the last one's 1000 bytes."""
    arguments, _ = a_run(tmp_path)
    monkeypatch.setattr("tasks.train.run.checkpoints.shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    save = SimpleNamespace(should_save=True)
    if enough:
        callbacks.MarkCheckpoints().on_step_end(arguments, a_state(4), save)
        return
    with pytest.raises(DiskFull, match="make room and run the stage again"):
        callbacks.MarkCheckpoints().on_step_end(arguments, a_state(4), save)
    callbacks.MarkCheckpoints().on_step_end(arguments, a_state(4, first_process=False), save)
