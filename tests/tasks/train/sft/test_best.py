"""The weights of the lowest validation loss are kept, also by a run that goes on from before or after them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.train.sft import best


def evaluated(run: Path, losses: dict[int, float]) -> Any:
    """A trainer of one weight that was its step's number at each validation."""
    model = torch.nn.Linear(1, 1, bias=False)
    state = SimpleNamespace(global_step=0, is_world_process_zero=True, log_history=[])
    callback = best.KeepBest(run)
    for step, loss in losses.items():
        torch.nn.init.constant_(model.weight, float(step))
        state.global_step = step
        state.log_history.append({"step": step, "eval_loss": loss})
        callback.on_evaluate(None, state, None, model=model)
    return SimpleNamespace(
        model=model,
        state=state,
        args=SimpleNamespace(world_size=1),
        accelerator=SimpleNamespace(unwrap_model=lambda found: found),
        is_world_process_zero=lambda: True,
    )


@pytest.mark.parametrize(
    ("losses", "kept"),
    [
        ({0: 5.0, 16: 3.7, 32: 3.5, 48: 3.6, 64: 4.2}, 32),
        ({0: 3.0, 16: 3.7, 32: 3.5}, 32),  # the beginning is no training
        ({0: 5.0, 16: 4.0, 32: 3.0}, 32),
        ({0: 5.0, 16: 3.0, 32: 3.0}, 32),
        ({0: 5.0}, 0),
    ],
)
def test_the_weights_of_the_lowest_loss_are_put_back(tmp_path: Path, losses: Any, kept: int) -> None:
    trainer = evaluated(tmp_path, losses)
    assert best.put_best(trainer, tmp_path) == kept == trainer.model.weight.item()


def test_no_more_copies_lie_about_than_the_best_and_the_one_before(tmp_path: Path) -> None:
    evaluated(tmp_path, {0: 5.0, 1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0, 5: 9.0})
    assert {path.name for path in tmp_path.iterdir()} == {"best-3.safetensors", "best-4.safetensors"}
