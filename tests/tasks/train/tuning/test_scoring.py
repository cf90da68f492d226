"""The loss on a processor is torch's own: value, gradient, and nothing for what does not count."""

from __future__ import annotations

import math
from typing import Any

import pytest


@pytest.fixture(scope="module")
def scoring() -> Any:
    """Imported here, because it brings torch along."""
    from tasks.train.tuning import scoring

    return scoring


def test_two_equal_words_cost_the_logarithm_of_two(scoring: Any) -> None:
    """Probabilities are 1/2 each: the loss is 2 log 2 for two rows, the gradient half less one at the target."""
    import torch

    logits = torch.zeros(2, 2, requires_grad=True)
    loss = scoring.cross_entropy_sum(logits * 1.0, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.log(2))
    assert logits.grad.tolist() == [[-0.5, 0.5], [0.5, -0.5]]


def test_values_and_gradients_are_torchs_own(scoring: Any) -> None:
    """More rows than go through at a time, some of them ignored, and a factor that bf16 would round."""
    import torch

    torch.manual_seed(0)
    given, targets = torch.randn(2, 20, 50), torch.randint(0, 50, (2, 20))
    targets[0, :5] = -100
    one, other = given.clone().requires_grad_(), given.clone().requires_grad_()
    found = scoring.cross_entropy_sum(one * 1.0, targets) / 35
    expected = torch.nn.functional.cross_entropy(other.flatten(0, 1), targets.flatten())
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(one.grad, other.grad)


def test_without_gradients_the_logits_stay(scoring: Any) -> None:
    import torch

    logits = torch.randn(3, 4)
    before = logits.clone()
    with torch.no_grad():
        scoring.cross_entropy_sum(logits, torch.tensor([0, 1, 2]))
    assert torch.equal(logits, before)
