"""PPO's arithmetic against cases computed by hand: what drifting costs, advantages and their ends, the losses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tasks.train.align.online.ppo_math import (
    AdaptiveKl,
    advantages_of,
    explained_variance,
    policy_losses,
    token_rewards,
    value_losses,
    whitened,
)

REWARDS = torch.tensor([[0.0, 0.0, 1.0], [0.5, 2.0, 9.0]])
VALUES = torch.tensor([[0.2, 0.4, 0.6], [1.0, 3.0, 7.0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])  # the second answer has two tokens; what stands behind them is noise


def with_others(*elsewhere: list[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sums over two processes, of which the other one gives these, one after the other; without them there is one."""
    left = iter(elsewhere)
    return lambda tensor: tensor + torch.tensor(next(left)).reshape(tensor.shape) if elsewhere else tensor


@pytest.mark.parametrize(
    ("gamma", "lam", "advantages", "returns"),
    [
        (0.9, 0.5, [[0.304, 0.32, 0.4], [1.75, -1.0, 0.0]], [[0.504, 0.72, 1.0], [2.75, 2.0, 0.0]]),
        (1.0, 1.0, [[0.8, 0.6, 0.4], [1.5, -1.0, 0.0]], [[1.0, 1.0, 1.0], [2.5, 2.0, 0.0]]),
        (1.0, 0.0, [[0.2, 0.2, 0.4], [2.5, -1.0, 0.0]], [[0.4, 0.6, 1.0], [3.5, 2.0, 0.0]]),
    ],
    ids=["between", "sum of rewards to come", "error of one step"],
)
def test_the_hand_computed_cases(
    gamma: float, lam: float, advantages: list[list[float]], returns: list[list[float]]
) -> None:
    """γ = 0.9 and λ = 0.5, so that γλ = 0.45.

    First answer: δ = (0 + 0.9·0.4 − 0.2, 0 + 0.9·0.6 − 0.4, 1 − 0.6) = (0.16, 0.14, 0.4);
    A₃ = 0.4, A₂ = 0.14 + 0.45·0.4 = 0.32, A₁ = 0.16 + 0.45·0.32 = 0.304.
    Second: δ = (0.5 + 0.9·3 − 1, 2 − 3) = (2.2, −1); A₂ = −1, A₁ = 2.2 − 0.45 = 1.75.
    """
    seen = advantages_of(REWARDS, VALUES, MASK, gamma, lam)
    torch.testing.assert_close(seen, (torch.tensor(advantages), torch.tensor(returns)))


def test_whitening_counts_what_the_mask_shows_of_all_processes_together() -> None:
    """1 and 3 have mean 2 and variance 1, whatever stands beside them; with 5 and 7 elsewhere mean 4 and variance 5."""
    seen = whitened(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1, 1, 0]]), with_others())
    torch.testing.assert_close(seen, torch.tensor([[-1.0, 1.0, 0.0]]))
    seen = whitened(torch.tensor([1.0, 3.0]), torch.ones(2), with_others([2.0, 12.0], [10.0]))
    assert seen.tolist() == pytest.approx([-3 / 5**0.5, -1 / 5**0.5])


@pytest.mark.parametrize(
    ("values", "returns", "mask", "elsewhere", "expected"),
    [
        # Returns 1, 2, 3 and 6 have variance (4 + 1 + 0 + 9) / 4; the errors 1, 0, 1 and 2 have (0 + 1 + 0 + 1) / 4.
        ([0.0, 2.0, 2.0, 4.0, -9.0], [1.0, 2.0, 3.0, 6.0, 50.0], [1, 1, 1, 1, 0], [], 1 - 0.5 / 3.5),
        ([1.0, 3.0], [1.0, 3.0], [1, 1], [], 1.0),
        ([5.0, 5.0], [1.0, 3.0], [1, 1], [], 0.0),
        ([3.0, 1.0], [1.0, 3.0], [1, 1], [], -3.0),  # the errors, -2 and 2, have 4
        ([1.0, 2.0], [0.1, 0.1], [1, 1], [], 0.0),  # returns that are all alike leave nothing to explain
        # Errors 1 and 3; elsewhere returns 5 and 7 with no error: means 4 and 1, variances 5 and 1.5.
        ([0.0, 0.0], [1.0, 3.0], [1, 1], [[2.0, 12.0, 0.0], [10.0, 2.0]], 1 - 1.5 / 5),
    ],
)
def test_the_explained_variance_is_the_share_that_the_values_foresaw(
    values: list[float], returns: list[float], mask: list[int], elsewhere: list[list[float]], expected: float
) -> None:
    tensors = torch.tensor(values), torch.tensor(returns), torch.tensor(mask)
    assert explained_variance(*tensors, with_others(*elsewhere)) == pytest.approx(expected)


def test_every_token_pays_and_the_last_one_earns_the_score() -> None:
    drift = torch.tensor([[0.5, -0.2, 0.1], [1.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    seen = token_rewards(torch.tensor([2.0, -1.0]), drift, mask, coefficient=0.1)
    torch.testing.assert_close(seen, torch.tensor([[-0.05, 0.02, 1.99], [-1.1, 0.0, 0.0]]))


@pytest.mark.parametrize(("kl", "change"), [(6.0, 0.0), (6.6, 0.1), (60.0, 0.2), (0.0, -0.2)])
def test_the_price_follows_the_drift_by_a_fifth_at_most(kl: float, change: float) -> None:
    price = AdaptiveKl(0.05, target=6.0, horizon=1000)
    price.update(kl, answers=100)
    assert price.coefficient == pytest.approx(0.05 * (1 + change * 100 / 1000))


def test_a_gain_counts_up_to_the_clip_and_a_harm_in_full() -> None:
    """Ratios 1.5 and 0.5 with ε = 0.2: a good token gains 1.2 or 0.5 times, a bad one costs 1.5 or 0.8 times."""
    now = torch.tensor([1.5, 0.5, 1.5, 0.5]).log().requires_grad_()
    losses = policy_losses(now, torch.zeros(4), torch.tensor([2.0, 2.0, -2.0, -2.0]), 0.2)
    torch.testing.assert_close(losses, torch.tensor([-2.4, -1.0, 3.0, 1.6]))
    losses.sum().backward()
    assert now.grad is not None and now.grad.tolist() == pytest.approx([0.0, -1.0, 3.0, 0.0])  # no push past the clip


def test_the_value_pays_the_larger_of_both_errors() -> None:
    """Old value 0, return 1, clip 0.2. At 0.9: own error 0.1, held at 0.2 error 0.8; at −0.5: own 1.5, held 1.2."""
    seen = value_losses(torch.tensor([0.9, -0.5]), torch.zeros(2), torch.ones(2), 0.2)
    torch.testing.assert_close(seen, torch.tensor([0.5 * 0.8**2, 0.5 * 1.5**2]))
