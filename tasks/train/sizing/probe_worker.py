"""One process of a probe: a stage's own worker, made to stop after a few steps and to say how long each took.

Started as `python -m tasks.train.sizing.probe_worker WORKER_MODULE JOB_FILE RUN_FOLDER`. Leaves [seconds, tokens] of
each step, seconds of saving and peak bytes in RUN_FOLDER/probe-<rank>.json, the worker's words in output-<rank>.log.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before the libraries speak
    with (Path(sys.argv[3]) / f"output-{os.environ.get('RANK', '0')}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)

from transformers import TrainerCallback, trainer

from tasks.core.files import write_json
from tasks.train.run.heartbeat import memory


class Stopwatch(TrainerCallback):
    """Times what the trainer does, and ends it after as many steps as RUN_FOLDER/probe.json says."""

    def __init__(self) -> None:
        self._last, self._tokens = 0.0, 0  # since the last of what is timed ended
        self._seen: dict[str, Any] = {"steps": [], "saving": 0.0}

    def _lap(self) -> tuple[float, int]:
        """Seconds, and tokens that passed the model, since the last lap."""
        now = time.monotonic()
        lap = now - self._last, self._tokens
        self._last, self._tokens = now, 0
        return lap

    def _count(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        self._tokens += ids.numel() if ids is not None else 0

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """All is loaded."""
        self._steps = json.loads((Path(args.output_dir) / "probe.json").read_text(encoding="utf-8"))["steps"]
        model.register_forward_pre_hook(self._count, with_kwargs=True)
        self._seen["started"] = time.monotonic()
        self._lap()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock starts."""
        self._lap()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock stops; the last step ends the run."""
        self._seen["steps"].append(self._lap())
        if state.global_step >= self._steps:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is written."""
        self._seen["saving"], _tokens = self._lap()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave what was seen."""
        peaks = memory()
        found = {**self._seen, "ended": time.monotonic(), "peak_bytes": peaks["peak_gpu_bytes"] or peaks["peak_bytes"]}
        write_json(Path(args.output_dir) / f"probe-{args.process_index}.json", found)


if __name__ == "__main__":
    os.environ.pop("MLFLOW_RUN_ID", None)  # a probe's losses are no curve of the run
    trainer.DEFAULT_CALLBACKS.append(Stopwatch)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
