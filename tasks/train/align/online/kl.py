"""How far the policy may go from the SFT policy: a cost on every token, its price steered to a target.

Needs torch: import it in a worker process only.
"""

from __future__ import annotations

from torch import Tensor

LARGEST_ERROR = 0.2  # of the target's share, in one update


def token_rewards(scores: Tensor, drift: Tensor, mask: Tensor, coefficient: float) -> Tensor:
    """What PPO maximises: −β (log π − log π_ref) at every token, and the answer's score at its last one.

    Ziegler et al. 2019 (arXiv 1909.08593), eq. 2; Ouyang et al. 2022 (arXiv 2203.02155), eq. 2 with γ = 0.

    Args:
        scores: (answers,) of the reward model.
        drift: (answers, tokens), log π − log π_ref in nats.
        mask: (answers, tokens), 1 up to and with an answer's last token, of which there is at least one.
        coefficient: β, reward a nat.
    """
    rewards = -coefficient * drift * mask
    last = mask.long().sum(dim=1) - 1
    rewards[range(len(scores)), last] += scores.to(rewards.dtype)
    return rewards


class AdaptiveKl:
    """The price β of a nat, raised where the policy drifts further than the target and lowered where less.

    β ← β (1 + n/horizon · clip(KL/target − 1, ±0.2)) after n answers: Ziegler et al. 2019 (arXiv 1909.08593),
    section 2.2, whose K_β is n/horizon here, as in the authors' code.

    Args:
        coefficient: the first β; 0 stays 0.
        target: nats an answer.
        horizon: answers.
    """

    def __init__(self, coefficient: float, target: float, horizon: float) -> None:
        self.coefficient = coefficient
        self._target, self._horizon = target, horizon

    def update(self, kl: float, answers: int) -> None:
        """Take note of the mean drift (nats an answer) of that many answers."""
        error = min(max(kl / self._target - 1.0, -LARGEST_ERROR), LARGEST_ERROR)
        self.coefficient *= 1.0 + error * answers / self._horizon
