"""The trainer of supervised fine-tuning: the order of its batches after a resume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.train.tuning.batches import PlannedBatches


@pytest.fixture(scope="module")
def trainer() -> Any:
    """Imported here, because it brings torch and trl along."""
    from tasks.train.tuning import trainer

    return trainer


def a_state(epoch: float | None) -> SimpleNamespace:
    return SimpleNamespace(epoch=epoch)


@pytest.mark.parametrize("reached, epoch", [(None, 0), (0, 0), (1.0, 1), (1.375, 1), (2.0, 2)])
def test_a_run_that_goes_on_reads_the_order_of_its_epoch(trainer: Any, reached: float | None, epoch: int) -> None:
    batches = PlannedBatches([1, 2, 3, 4], 1, 2, 0, seed=0)
    trainer._NextEpoch(batches).on_epoch_begin(None, a_state(reached), None)
    assert batches.epoch == epoch
