"""How much better each token of an answer was than expected: generalised advantage estimation.

Needs torch: import it in a worker process only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EPSILON = 1e-8


def advantages_of(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns of answers that end where their mask does.

    δ_t = r_t + γ V_{t+1} − V_t and A_t = δ_t + γλ A_{t+1}, with V and A zero after an answer's last token (Schulman et
    al. 2016, arXiv 1506.02438, eq. 16). An answer that was cut at the longest length allowed counts as ended.

    Args:
        rewards: (answers, tokens), in units of the reward model.
        values: (answers, tokens), what was expected from each token on.
        mask: (answers, tokens), 1 up to and with an answer's last token.
        gamma: discount of the next token's reward.
        lam: λ; 1 gives the plain return, 0 the one-step error.

    Returns:
        Advantages and returns (A_t + V_t), both (answers, tokens) and zero outside of the mask.
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
    """Values with variance one, and mean zero where `centred`, over the mask of all processes together.

    Args:
        values: any shape.
        mask: the same shape, 1 where a value counts.
        total: sums a tensor over all processes.
    """
    mask = mask.to(values.dtype)
    count, first = total(torch.stack([mask.sum(), (values * mask).sum()]))
    mean = first / count
    variance = total((((values - mean) ** 2) * mask).sum()) / count
    scaled = (values - mean) * torch.rsqrt(variance + EPSILON)
    return (scaled if centred else scaled + mean) * mask


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor, total: Callable[[Tensor], Tensor]) -> float:
    """The share of the returns' variance that the value head foresaw: 1 − Var(returns − values) / Var(returns).

    1 is perfect, 0 no better than a constant, and below 0 worse than that; 0 too where all returns are alike. Over the
    mask of all processes together.

    Args:
        values: any shape, in units of the reward; as the answers were judged, before they were learnt from.
        returns: the same shape.
        mask: the same shape, 1 where a token counts.
        total: sums a tensor over all processes.
    """
    shown = mask.to(returns.dtype)
    both = torch.stack([returns, returns - values])
    sums = total(torch.stack([shown.sum(), *(row.sum() for row in both * shown)]))
    means = (sums[1:] / sums[0]).reshape(2, *[1] * returns.dim())
    squares = total((((both - means) ** 2) * shown).reshape(2, -1).sum(dim=1))
    whole, left = (squares / sums[0]).tolist()
    return 1.0 - left / whole if whole > EPSILON else 0.0
