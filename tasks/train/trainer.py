"""TRL's SFTTrainer with a planned order of batches, checkpoints that are marked when complete, and plain progress.

Needs torch, transformers, trl and peft: import it in a worker process only. Limits: on CPU the loss is computed here,
because TRL's fused head scores every position there, prompt and padding too (measured: half the speed); on GPUs it is
TRL's own.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import SFTTrainer

from tasks.errors import FlywheelError
from tasks.train.batches import IGNORED, PlannedBatches
from tasks.train.checkpoints import mark_complete

PROGRESS_SECONDS = 15.0


class TrainingDiverged(FlywheelError):
    """The loss is no longer a number."""


class PlannedTrainer(SFTTrainer):
    """SFTTrainer whose batches come from `PlannedBatches`; its dataset has input_ids and labels already."""

    def get_train_dataloader(self) -> DataLoader:
        """This process's batches; they are dealt here, so accelerate has nothing to share out."""
        args = self.args
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        batches = PlannedBatches(
            lengths, args.per_device_train_batch_size, args.world_size, args.process_index, args.data_seed
        )
        self.add_callback(_NextEpoch(batches))
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood (nats) of the answer tokens of the whole step, over all processes.

        On CPU the head is asked only for the columns in which some row has an answer token.
        """
        if self.args.device.type != "cpu" or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        columns = (labels != IGNORED).any(dim=0).nonzero().flatten()
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
            logits_to_keep=columns,
        ).logits
        targets = labels[:, columns]
        kept = targets != IGNORED
        total = torch.nn.functional.cross_entropy(logits[kept].float(), targets[kept], reduction="sum")
        if num_items_in_batch is None:
            return total / kept.sum()
        return total / num_items_in_batch * self.accelerator.num_processes


class _NextEpoch(TrainerCallback):
    """Tells the batches which epoch begins, also after a resume in its middle."""

    def __init__(self, batches: PlannedBatches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._batches.epoch = int(state.epoch or 0)


class MarkCheckpoints(TrainerCallback):
    """Writes a checkpoint's manifest when every process has written its part of it."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Wait for all, then mark."""
        if args.world_size > 1:
            torch.distributed.barrier()
        if state.is_world_process_zero:
            mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class StopAtNan(TrainerCallback):
    """Ends the run when a loss is not finite; transformers would go on and report an average instead."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Look at every loss that is logged.

        Raises:
            TrainingDiverged: one is NaN or infinite.
        """
        for name in ("loss", "eval_loss"):
            value = (logs or {}).get(name, 0.0)
            if not math.isfinite(value):
                raise TrainingDiverged(f"{name} is {value} at step {state.global_step}; lower sft.learning_rate")


class Progress(TrainerCallback):
    """A bar on a terminal, otherwise a line every few seconds: step, loss, tokens a second, time left."""

    def __init__(self, tokens_per_step: float) -> None:
        self._tokens_per_step = tokens_per_step
        self._began = self._said = 0.0
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Say where a resumed run goes on."""
        if state.is_world_process_zero and state.global_step:
            print(f"sft: going on from step {state.global_step} of {state.max_steps}", flush=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock at the first step, after the first validation."""
        if not self._began:
            self._began, self._first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Say where the training is, not more often than is useful."""
        if not state.is_world_process_zero or not logs:
            return
        if "eval_loss" in logs:
            self._line(f"sft: step {state.global_step} of {state.max_steps}, validation loss {logs['eval_loss']:.4f}")
        elif "loss" in logs:
            self._step(state, logs["loss"])

    def _step(self, state: Any, loss: float) -> None:
        now, terminal = time.monotonic(), sys.stdout.isatty()
        last = state.global_step == state.max_steps
        if not terminal and not last and now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        done = state.global_step - self._first_step
        rate = done / (now - self._began)
        text = (
            f"sft: step {state.global_step} of {state.max_steps}, loss {loss:.4f}, "
            f"{rate * self._tokens_per_step:.0f} tokens/s, {_clock((state.max_steps - state.global_step) / rate)} left"
        )
        if not terminal:
            print(text, flush=True)
            return
        filled = 20 * state.global_step // state.max_steps
        print(f"\r\033[K[{'#' * filled:<20}] {text}", end="\n" if last else "", flush=True)

    def _line(self, text: str) -> None:
        print(f"\r\033[K{text}" if sys.stdout.isatty() else text, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
