"""The cost of drifting from the SFT policy, and its price."""

from __future__ import annotations

import pytest
import torch

from tasks.train.align.online.kl import AdaptiveKl, token_rewards


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
