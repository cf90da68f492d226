"""What every training does beside learning: checkpoints marked, NaN refused, progress, the curve. Needs torch."""

from __future__ import annotations

import math
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback

from tasks.core.errors import FlywheelError
from tasks.core.files import write_text
from tasks.core.words import clock
from tasks.train.run import heartbeat
from tasks.train.run.checkpoints import check_room, mark_complete
from tasks.train.run.job import TrainingJob, curves
from tasks.train.run.worker import Curve, history_of

PROGRESS_SECONDS = 15.0
PLOT_SECONDS = 5.0
SHOWN = ("loss", "reward", "rewards/chosen", "kl")  # of what is logged, those that a person is shown


class TrainingDiverged(FlywheelError):
    """The loss is no longer a number."""


class MarkCheckpoints(TrainerCallback):
    """Writes a checkpoint's manifest when every process has written its part of it; tells the beat of every move."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The training proper begins."""
        heartbeat.note("training", state.global_step, state.max_steps)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is done; before a checkpoint, see that it has room. Raises DiskFull: it has not."""
        heartbeat.note("saving" if control.should_save else "training", state.global_step, state.max_steps)
        if control.should_save and state.is_world_process_zero:
            check_room(Path(args.output_dir))

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A batch of several of a step is done, or one was evaluated."""
        heartbeat.note("training")

    on_prediction_step = on_substep_end

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """What follows is comparing and saving."""
        heartbeat.note("ending")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for all, then mark."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        heartbeat.note("training")


class StopAtNan(TrainerCallback):
    """Ends the run when a loss is not finite; transformers would go on and report an average instead."""

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Look at every loss that is logged. Raises TrainingDiverged: one is NaN or infinite."""
        for name, value in (logs or {}).items():
            if (name == "loss" or re.fullmatch(r"eval_(\w+_)?loss", name)) and not math.isfinite(value):
                raise TrainingDiverged(
                    f"{name} is {value} at step {state.global_step}; lower {self._stage}.learning_rate"
                )


class Progress(TrainerCallback):
    """A bar on a terminal, otherwise a line every few seconds; without `tokens_per_step` it gives steps a minute."""

    def __init__(self, stage: str, tokens_per_step: float | None = None) -> None:
        self._stage = stage
        self._tokens_per_step = tokens_per_step
        self._began = self._said = 0.0
        self._first_step = 0
        self._said_step = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say where a resumed run goes on."""
        if state.is_world_process_zero and state.global_step:
            print(f"{self._stage}: going on from step {state.global_step} of {state.max_steps}", flush=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock at the first step, after the first validation."""
        if not self._began:
            self._began, self._first_step = time.monotonic(), state.global_step
        elif self._said_step < state.global_step - 1:  # the step before the last was not logged
            self._step(state, {})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Say where the training is, not more often than is useful."""
        if logs and "eval_loss" in logs and state.is_world_process_zero:
            where = f"step {state.global_step} of {state.max_steps}"
            text = f"{self._stage}: {where}, validation loss {logs['eval_loss']:.4f}"
            print(f"\r\033[K{text}" if sys.stdout.isatty() else text, flush=True)
        elif logs and self._began and not any(name == "train_runtime" or name.startswith("eval_") for name in logs):
            self._step(state, logs)

    def _step(self, state: Any, logs: dict[str, Any]) -> None:
        now, terminal = time.monotonic(), sys.stdout.isatty()
        done, last = state.global_step - self._first_step, state.global_step == state.max_steps
        self._said_step = state.global_step
        soon = not terminal and not last and now - self._said < PROGRESS_SECONDS
        if soon or not state.is_world_process_zero or done <= 0 or now <= self._began:
            return
        self._said = now
        rate = done / (now - self._began)
        tokens = self._tokens_per_step
        speed = f"{rate * tokens:.0f} tokens/s" if tokens else f"{rate * 60:.1f} steps/min"
        shown = [f"{name} {logs[name]:.4f}" for name in SHOWN if isinstance(logs.get(name), int | float)]
        where = f"{self._stage}: step {state.global_step} of {state.max_steps}"
        text = ", ".join([where, *shown, speed, f"{clock((state.max_steps - state.global_step) / rate)} left"])
        if terminal:
            filled = 20 * state.global_step // max(state.max_steps, 1)
            text = f"\r\033[K[{'#' * filled:<20}] {text}"
        print(text, end="" if terminal and not last else "\n", flush=True)


class LivePlot(TrainerCallback):
    """Rewrites the file of `dvc plots` while it trains; `render` makes its text of the trainer's log history."""

    def __init__(self, path: Path, render: Callable[[list[dict[str, Any]]], str]) -> None:
        self._path = path
        self._render = render
        self._drawn = 0.0

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw again, not more often than a person looks."""
        if time.monotonic() - self._drawn >= PLOT_SECONDS:
            self.on_train_end(args, state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The whole curve."""
        if state.is_world_process_zero:
            self._drawn = time.monotonic()
            write_text(self._path, self._render(state.log_history))


Rows = list[list[Any]]


def common_callbacks(
    job: TrainingJob,
    shown: tuple[Curve, ...],
    tokens_per_step: float | None = None,
    plotted: Callable[[Rows], Iterable[Iterable[Any]]] = list,
) -> list[TrainerCallback]:
    """Those that every training has; `shown` are the figures of the live plot, `plotted` makes its rows."""
    live = LivePlot(job.plot, lambda log: curves(plotted(history_of(log, shown)), job.columns))
    return [MarkCheckpoints(), Progress(job.stage, tokens_per_step), *([live] if job.drawn else [])]


def unprinted(trainer: Any) -> Any:
    """The trainer without transformers' own lines, for which ours stand."""
    trainer.remove_callback(PrinterCallback)
    return trainer
