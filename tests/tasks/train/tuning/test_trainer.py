"""The trainer of supervised fine-tuning: its batches after a resume, and its loss on a processor, which is torch's."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from tasks.train.tuning import trainer
from tasks.train.tuning.batches import PlannedBatches


def a_state(epoch: float | None) -> SimpleNamespace:
    return SimpleNamespace(epoch=epoch)


@pytest.mark.parametrize("reached, epoch", [(None, 0), (0, 0), (1.0, 1), (1.375, 1), (2.0, 2)])
def test_a_run_that_goes_on_reads_the_order_of_its_epoch(reached: float | None, epoch: int) -> None:
    batches = PlannedBatches([1, 2, 3, 4], 1, 2, 0, seed=0)
    trainer._NextEpoch(batches).on_epoch_begin(None, a_state(reached), None)
    assert batches.epoch == epoch


def test_two_equal_words_cost_the_logarithm_of_two() -> None:
    """Probabilities are 1/2 each: the loss is 2 log 2 for two rows, the gradient half less one at the target."""
    logits = torch.zeros(2, 2, requires_grad=True)
    loss = trainer.cross_entropy_sum(logits * 1.0, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log(2))
    assert logits.grad.tolist() == [[-0.5, 0.5], [0.5, -0.5]]


def test_values_and_gradients_are_torchs_own() -> None:
    """More rows than go through at a time, some of them ignored, and a factor that bf16 would round."""
    torch.manual_seed(0)
    given, targets = torch.randn(2, 20, 50), torch.randint(0, 50, (2, 20))
    targets[0, :5] = -100
    one, other = given.clone().requires_grad_(), given.clone().requires_grad_()
    found = trainer.cross_entropy_sum(one * 1.0, targets) / 35
    expected = torch.nn.functional.cross_entropy(other.flatten(0, 1), targets.flatten())
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(one.grad, other.grad)


def test_without_gradients_the_logits_stay() -> None:
    logits = torch.randn(3, 4)
    before = logits.clone()
    with torch.no_grad():
        trainer.cross_entropy_sum(logits, torch.tensor([0, 1, 2]))
    assert torch.equal(logits, before)
