"""The two losses of PPO, token by token.

Needs torch: import it in a worker process only.
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_losses(logps: Tensor, old_logps: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """−min(ρA, clip(ρ, 1±ε)A) with ρ = π/π_old: Schulman et al. 2017 (arXiv 1707.06347), eq. 7.

    Args:
        logps: log-probabilities of the chosen tokens now, in nats; any shape.
        old_logps: as they were when the answers were given; the same shape.
        advantages: the same shape.
        clip: ε.
    """
    ratio = torch.exp(logps - old_logps)
    return -torch.min(ratio * advantages, ratio.clamp(1.0 - clip, 1.0 + clip) * advantages)


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Half the squared error, the larger of the values' own and of values held within ±clip of the old ones.

    The clipping is that of the authors' code (Huang et al. 2022, "The 37 implementation details of PPO", no. 9).

    Args:
        values: what is expected now; any shape, as are old_values and returns.
        clip: in units of the reward.
    """
    held = torch.clamp(values, old_values - clip, old_values + clip)
    return 0.5 * torch.max((values - returns) ** 2, (held - returns) ** 2)
