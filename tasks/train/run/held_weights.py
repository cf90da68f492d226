"""Copies of what a policy trains, adapter or all weights, also under ZeRO: the frozen rest is shared. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

VALUE_HEAD = "value_head"

Held = dict[str, Tensor]


def policy_parameters(model: Any) -> dict[str, Any]:
    """The trained parameters by name, without the value head."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad and VALUE_HEAD not in name}


def whole(parameters: list[Any], write: bool = False) -> AbstractContextManager[Any]:
    """Inside, the parameters are whole even where ZeRO-3 shares them out; `write` keeps what is written to them."""
    if not any(hasattr(p, "ds_id") for p in parameters):
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(
        parameters, modifier_rank=0 if write else None
    )
    return gathered


def held(model: Any) -> Held:
    """A copy of the policy's trained parameters."""
    parameters = policy_parameters(model)
    with whole(list(parameters.values())):
        return {name: p.detach().clone() for name, p in parameters.items()}


@torch.no_grad()
def put(model: Any, weights: Held) -> None:
    """Give the policy these trained parameters."""
    parameters = policy_parameters(model)
    with whole(list(parameters.values()), write=True):
        for name, p in parameters.items():
            p.copy_(weights[name])


@contextmanager
def lent(model: Any, weights: Held) -> Iterator[None]:
    """Inside, the policy is the one with these trained parameters; afterwards it is itself again."""
    own = held(model)
    put(model, weights)
    try:
        yield
    finally:
        put(model, own)


def all_finite(weights: Held) -> bool:
    """Whether every number of them is one."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
