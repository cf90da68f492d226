"""Machines: the table of prices that ships, GPUs for hire, and what of a GPU is free."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.train.run.job import TrainingJob
from tasks.train.sizing.demand import Batch, forward_operations
from tasks.train.sizing.estimate import size
from tasks.train.sizing.hired import on_gpu
from tasks.train.sizing.machines import SHIPPED, gpu_free, gpu_memory, read_prices

FAKE = """#!/bin/sh
case "$*" in
  *memory.total*) echo 81559; echo 81559 ;;
  *memory.free*) echo 81000; echo 512 ;;
esac
"""


def test_what_another_process_holds_of_a_gpu_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text(FAKE)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_memory() == [81559 << 20] * 2
    assert gpu_free() == [81000 << 20, 512 << 20]


def test_a_hired_gpu_is_paid_for_validating_and_saving_too(job: TrainingJob) -> None:
    """Two processes' three validations of one batch on one GPU: 6 passes at 0.3 × 10⁷ operations a second."""
    prices = read_prices(SHIPPED).model_copy(update={"gpu_layer_milliseconds": 0.0, "gpu_utilisation": 0.3})
    gpu = prices.gpus[0].model_copy(update={"bf16_tflops": 1e-5})
    batch, sizing = Batch(1, 16, 8), size(job)
    without = replace(sizing, work=replace(sizing.work, checks=(), validations=0))
    checked = replace(sizing, work=replace(sizing.work, checks=(batch,), validations=3))
    more = on_gpu(checked, gpu, prices)["seconds"] - on_gpu(without, gpu, prices)["seconds"]
    assert more == pytest.approx(6 * forward_operations(sizing.training, batch) / 3e6, abs=0.11)
