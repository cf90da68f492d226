"""The losses of PPO by hand."""

from __future__ import annotations

import torch

from tasks.train.align.online.ppo_loss import policy_losses, value_losses


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
