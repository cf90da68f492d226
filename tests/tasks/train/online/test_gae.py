"""Advantages against a case computed by hand, and its two ends λ=0 and λ=1."""

from __future__ import annotations

import pytest
import torch

from tasks.train.online.gae import advantages_of, whitened

REWARDS = torch.tensor([[0.0, 0.0, 1.0], [0.5, 2.0, 9.0]])
VALUES = torch.tensor([[0.2, 0.4, 0.6], [1.0, 3.0, 7.0]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0]])  # the second answer has two tokens; what stands behind them is noise


def test_the_hand_computed_case() -> None:
    """γ = 0.9 and λ = 0.5, so that γλ = 0.45.

    First answer: δ = (0 + 0.9·0.4 − 0.2, 0 + 0.9·0.6 − 0.4, 1 − 0.6) = (0.16, 0.14, 0.4);
    A₃ = 0.4, A₂ = 0.14 + 0.45·0.4 = 0.32, A₁ = 0.16 + 0.45·0.32 = 0.304.
    Second: δ = (0.5 + 0.9·3 − 1, 2 − 3) = (2.2, −1); A₂ = −1, A₁ = 2.2 − 0.45 = 1.75.
    """
    advantages, returns = advantages_of(REWARDS, VALUES, MASK, gamma=0.9, lam=0.5)
    torch.testing.assert_close(advantages, torch.tensor([[0.304, 0.32, 0.4], [1.75, -1.0, 0.0]]))
    torch.testing.assert_close(returns, torch.tensor([[0.504, 0.72, 1.0], [2.75, 2.0, 0.0]]))


def test_with_lambda_one_the_return_is_the_sum_of_rewards_to_come() -> None:
    _, returns = advantages_of(REWARDS, VALUES, MASK, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[1.0, 1.0, 1.0], [2.5, 2.0, 0.0]]))


def test_with_lambda_zero_the_advantage_is_the_error_of_one_step() -> None:
    advantages, _ = advantages_of(REWARDS, VALUES, MASK, gamma=1.0, lam=0.0)
    torch.testing.assert_close(advantages, torch.tensor([[0.2, 0.2, 0.4], [2.5, -1.0, 0.0]]))


def test_whitening_counts_only_what_the_mask_shows() -> None:
    """1 and 3 have mean 2 and variance 1, whatever stands beside them."""
    seen = whitened(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1, 1, 0]]), total=lambda tensor: tensor)
    torch.testing.assert_close(seen, torch.tensor([[-1.0, 1.0, 0.0]]))


def test_whitening_is_over_all_processes_together() -> None:
    """Here 1 and 3, elsewhere 5 and 7 as well: mean 4, variance 5."""
    elsewhere = iter((torch.tensor([2.0, 12.0]), torch.tensor(10.0)))
    seen = whitened(torch.tensor([1.0, 3.0]), torch.ones(2), total=lambda tensor: tensor + next(elsewhere))
    assert seen.tolist() == pytest.approx([-3 / 5**0.5, -1 / 5**0.5])
