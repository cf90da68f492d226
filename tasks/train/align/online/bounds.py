"""Where an online training stops by itself, because going on would spoil the policy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tasks.core.training_params import BoundsParams


class OutOfBounds(Exception):
    """A training left its bounds. Not an error: the run ends with the last good policy and says why."""


def check(bounds: BoundsParams, figures: Mapping[str, float]) -> None:
    """Compare the figures of an update, as far as they are there, with their bounds.

    Raises OutOfBounds: with the reason, for people.

    Args:
        bounds: the settings.
        figures: `kl` in nats an answer, `ratio` (largest of a minibatch, a mean over the update's), `entropy` in nats a
            token, and any others, of which all must be finite.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            raise OutOfBounds(f"{name} is {value}; lower align.learning_rate")
    kl, ratio, entropy = figures.get("kl"), figures.get("ratio"), figures.get("entropy")
    if kl is not None and kl > bounds.max_kl:
        raise OutOfBounds(f"the policy is {kl:.2f} nats an answer from the SFT policy, over align.bounds.max_kl")
    if ratio is not None and ratio > bounds.max_ratio:
        raise OutOfBounds(f"an update changed a token's probability {ratio:.2f} times, over align.bounds.max_ratio")
    if entropy is not None and entropy < bounds.min_entropy:
        raise OutOfBounds(f"answers have {entropy:.3f} nats a token left, under align.bounds.min_entropy")
