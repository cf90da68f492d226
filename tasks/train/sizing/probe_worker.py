"""One process of a probe: a stage's own worker, made to stop after a few steps and to say how long each took.

Started as `python -m tasks.train.sizing.probe_worker WORKER_MODULE JOB_FILE RUN_FOLDER`. Every trainer of ours is a
transformers.Trainer, so a callback added to its default ones sees the steps of all of them; the worker itself is run
as it is. Leaves RUN_FOLDER/probe-<rank>.json: seconds of each step, of validation and of saving, peak bytes.
"""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, trainer

from tasks.core.files import write_json


class Stopwatch(TrainerCallback):
    """Times what the trainer does, and ends it after as many as RUN_FOLDER/probe.json says."""

    def __init__(self) -> None:
        self._began = self._last = 0.0
        self._steps = 0
        self._seen: dict[str, Any] = {"steps": [], "validation": None, "saving": 0.0}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All is loaded."""
        self._steps = json.loads((Path(args.output_dir) / "probe.json").read_text(encoding="utf-8"))["steps"]
        self._seen["started"] = time.time()
        self._last = time.monotonic()

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The validation before the first step has its time."""
        if self._seen["validation"] is None:
            self._seen["validation"] = time.monotonic() - self._last
        self._last = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock starts."""
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The clock stops; the last step ends the run."""
        self._last = time.monotonic()
        self._seen["steps"].append(self._last - self._began)
        if state.global_step >= self._steps:
            control.should_training_stop = True
            control.should_save = True
            control.should_evaluate = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is written."""
        self._seen["saving"] = time.monotonic() - self._last

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave what was seen."""
        self._seen["ended"] = time.time()
        path = Path(args.output_dir) / f"probe-{args.process_index}.json"
        write_json(path, {**self._seen, "peak_bytes": peak_bytes()})


def peak_bytes() -> int:
    """The most memory this process held: on the GPU where it trains on one, else resident."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    os.environ.pop("MLFLOW_RUN_ID", None)  # a probe's losses are no curve of the run
    trainer.DEFAULT_CALLBACKS.append(Stopwatch)
    worker = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(worker, run_name="__main__", alter_sys=True)
