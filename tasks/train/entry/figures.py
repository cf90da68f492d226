"""Which of a training's figures releases are compared by."""

from __future__ import annotations

from typing import Any

LOSSES = ("validation_loss", "domain_loss", "train_loss")  # the first that there is


def figures_of(metrics: dict[str, Any]) -> dict[str, float]:
    """The held-out `loss` before and after, a reward model's `accuracy`, an online alignment's `reward`."""
    loss = next((name for name in LOSSES if name in metrics), "")
    found = {"loss_before": metrics.get(f"{loss}_before"), "loss": metrics.get(loss)}
    found |= {name: metrics.get(name) for name in ("reward_before", "reward")}
    found["accuracy"] = metrics.get("held_out", {}).get("accuracy")
    return {name: value for name, value in found.items() if value is not None}
