"""PPO's arithmetic: what a token earns, how much better it was than expected, and the two losses. Needs torch.

Shapes are (answers, tokens) unless said; masks are 1 up to and with an answer's last token. `total` sums over
processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EPSILON = 1e-8
LARGEST_ERROR = 0.2  # of the KL target's share, in one update


def token_rewards(scores: Tensor, drift: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """What PPO maximises: −β (log π − log π_ref) at every token, and the answer's score at its last one.

    Ziegler et al. 2019 (arXiv 1909.08593), eq. 2; Ouyang et al. 2022 (arXiv 2203.02155), eq. 2 with γ = 0.
    `scores` are (answers,), `drift` is log π − log π_ref in nats, and β is the coefficient, in reward a nat.
    """
    rewards = -coefficient * drift * mask
    last = mask.long().sum(dim=1) - 1
    rewards[range(len(scores)), last] += scores.to(rewards.dtype)
    return rewards


class AdaptiveKl:
    """The price β of a nat, raised where the policy drifts further than the target and lowered where less.

    β ← β (1 + n/horizon · clip(KL/target − 1, ±0.2)) after n answers: Ziegler et al. 2019 (arXiv 1909.08593),
    section 2.2, whose K_β is n/horizon here, as in the authors' code. The target is in nats an answer; a β of 0 stays.
    """

    def __init__(self, coefficient: float, target: float, horizon: float) -> None:
        self.coefficient = coefficient
        self._target, self._horizon = target, horizon

    def update(self, kl: float, answers: int) -> None:
        """Take note of the mean drift (nats an answer) of that many answers."""
        error = min(max(kl / self._target - 1.0, -LARGEST_ERROR), LARGEST_ERROR)
        self.coefficient *= 1.0 + error * answers / self._horizon


def advantages_of(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns (A_t + V_t) of answers, in units of the reward and zero outside of the mask.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, with V and A zero after an answer's last token (Schulman et
    al. 2016, arXiv 1506.02438, eq. 16). An answer that was cut at the longest length allowed counts as ended.
    """
    rewards, values = rewards * mask, values * mask
    ahead = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(ahead)
    columns = []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        ahead = (delta + gamma * lam * ahead) * mask[:, t]
        next_value = values[:, t]
        columns.append(ahead)
    advantages = torch.stack(columns[::-1], dim=1)
    return advantages, (advantages + values) * mask


def whitened(values: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor], centred: bool = True) -> Tensor:
    """Values with variance one, and mean zero where `centred`, over the mask of all processes together."""
    mask = mask.to(values.dtype)
    count, first = total(torch.stack([mask.sum(), (values * mask).sum()]))
    mean = first / count
    variance = total((((values - mean) ** 2) * mask).sum()) / count
    scaled = (values - mean) * torch.rsqrt(variance + EPSILON)
    return (scaled if centred else scaled + mean) * mask


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor]) -> float:
    """The share of the returns' variance that the value head foresaw: 1 − Var(returns − values) / Var(returns).

    1 is perfect, 0 no better than a constant; 0 too where all returns are alike. Over the mask of all processes
    together.
    """
    shown = mask.to(returns.dtype)
    both = torch.stack([returns, returns - values])
    sums = total(torch.stack([shown.sum(), *(row.sum() for row in both * shown)]))
    means = (sums[1:] / sums[0]).reshape(2, *[1] * returns.dim())
    squares = total((((both - means) ** 2) * shown).reshape(2, -1).sum(dim=1))
    whole, left = (squares / sums[0]).tolist()
    return 1.0 - left / whole if whole > EPSILON else 0.0


def policy_losses(logps: Tensor, old_logps: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """−min(ρA, clip(ρ, 1±ε)A) with ρ = π/π_old: Schulman et al. 2017 (arXiv 1707.06347), eq. 7."""
    ratio = torch.exp(logps - old_logps)
    return -torch.min(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, the larger of the values' own and of values held within ±clip of the old ones.

    The clipping is that of the authors' code (Huang et al. 2022, "The 37 implementation details of PPO", no. 9).
    """
    held = torch.clamp(values, old_values - clip, old_values + clip)
    return 0.5 * torch.max((values - returns) ** 2, (held - returns) ** 2)
