"""PPO's arithmetic against cases computed by hand: what drifting costs, advantages and their ends, the losses."""

from __future__ import annotations

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
    seen = whitened(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[1, 1, 0]]), total=alone)
    torch.testing.assert_close(seen, torch.tensor([[-1.0, 1.0, 0.0]]))


def test_whitening_is_over_all_processes_together() -> None:
    """Here 1 and 3, elsewhere 5 and 7 as well: mean 4, variance 5."""
    elsewhere = iter((torch.tensor([2.0, 12.0]), torch.tensor(10.0)))
    seen = whitened(torch.tensor([1.0, 3.0]), torch.ones(2), total=lambda tensor: tensor + next(elsewhere))
    assert seen.tolist() == pytest.approx([-3 / 5**0.5, -1 / 5**0.5])


def test_the_explained_variance_is_the_share_that_the_values_foresaw() -> None:
    """Returns 1, 2, 3 and 6 have mean 3 and variance (4 + 1 + 0 + 9) / 4 = 3.5; of the errors 1, 0, 1 and 2, with mean
    1, the variance is (0 + 1 + 0 + 1) / 4 = 0.5. The fifth is behind the mask."""
    returns = torch.tensor([[1.0, 2.0, 3.0], [6.0, 50.0, 0.0]])
    values = torch.tensor([[0.0, 2.0, 2.0], [4.0, -9.0, 7.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert explained_variance(values, returns, mask, alone) == pytest.approx(1 - 0.5 / 3.5)


@pytest.mark.parametrize(("values", "expected"), [([1.0, 3.0], 1.0), ([5.0, 5.0], 0.0), ([3.0, 1.0], -3.0)])
def test_it_is_one_for_perfect_values_none_for_a_constant_and_less_for_worse(
    values: list[float], expected: float
) -> None:
    """Returns 1 and 3 have variance 1; the errors of the last case, -2 and 2, have 4."""
    seen = explained_variance(torch.tensor(values), torch.tensor([1.0, 3.0]), torch.ones(2), alone)
    assert seen == pytest.approx(expected)


def test_returns_that_are_all_alike_leave_nothing_to_explain() -> None:
    assert explained_variance(torch.tensor([1.0, 2.0]), torch.full((2,), 0.1), torch.ones(2), alone) == 0.0


def test_it_is_over_all_processes_together() -> None:
    """Here returns 1 and 3 with errors 1 and 3, elsewhere 5 and 7 with no error: means 4 and 1, variances 5 and 1.5."""
    elsewhere = iter((torch.tensor([2.0, 12.0, 0.0]), torch.tensor([10.0, 2.0])))
    seen = explained_variance(
        torch.zeros(2), torch.tensor([1.0, 3.0]), torch.ones(2), lambda tensor: tensor + next(elsewhere)
    )
    assert seen == pytest.approx(1 - 1.5 / 5)


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes of a run that has one."""
    return tensor


def test_every_token_pays_and_the_last_one_earns_the_score() -> None:
    drift = torch.tensor([[0.5, -0.2, 0.1], [1.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    seen = token_rewards(torch.tensor([2.0, -1.0]), drift, mask, coefficient=0.1)
    torch.testing.assert_close(seen, torch.tensor([[-0.05, 0.02, 1.99], [-1.1, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.05),  # on target
        (6.6, 0.05 * (1 + 0.1 * 100 / 1000)),  # a tenth over it
        (60.0, 0.05 * (1 + 0.2 * 100 / 1000)),  # ten times over it counts as a fifth
        (0.0, 0.05 * (1 - 0.2 * 100 / 1000)),
    ],
)
def test_the_price_follows_the_drift(kl: float, expected: float) -> None:
    price = AdaptiveKl(0.05, target=6.0, horizon=1000)
    price.update(kl, answers=100)
    assert price.coefficient == pytest.approx(expected)


def test_a_gain_counts_up_to_the_clip_and_a_harm_in_full() -> None:
    """Ratios 1.5 and 0.5 with ε = 0.2: a good token gains 1.2 or 0.5 times, a bad one costs 1.5 or 0.8 times."""
    old = torch.zeros(4)
    now = torch.tensor([1.5, 0.5, 1.5, 0.5]).log()
    advantages = torch.tensor([2.0, 2.0, -2.0, -2.0])
    torch.testing.assert_close(policy_losses(now, old, advantages, 0.2), torch.tensor([-2.4, -1.0, 3.0, 1.6]))


def test_beyond_the_clip_a_good_token_is_pushed_no_further() -> None:
    now = torch.tensor([1.5, 1.1]).log().requires_grad_()
    policy_losses(now, torch.zeros(2), torch.ones(2), 0.2).sum().backward()
    assert now.grad is not None
    torch.testing.assert_close(now.grad, torch.tensor([0.0, -1.1]))


def test_the_value_pays_the_larger_of_both_errors() -> None:
    """Old value 0, return 1, clip 0.2. At 0.9: own error 0.1, held at 0.2 error 0.8; at −0.5: own 1.5, held 1.2."""
    seen = value_losses(torch.tensor([0.9, -0.5]), torch.zeros(2), torch.ones(2), 0.2)
    torch.testing.assert_close(seen, torch.tensor([0.5 * 0.8**2, 0.5 * 1.5**2]))
