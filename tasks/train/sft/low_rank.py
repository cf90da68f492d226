"""LoRA's layers on a processor, with fewer passes over memory: the same function as peft's, in fewer operations.

The low-rank part is added by the matrix multiplication itself, there and back. A layer that is more than W x + s B A x,
of mixed precision or shared out by ZeRO-3 is left to peft, which on GPUs is as fast. Needs torch and peft.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear

ADAPTER = "default"  # peft's name of an adapter that is given none


def use_fewer_passes(model: Any) -> int:
    """Let the model's LoRA layers compute in fewer passes; returns how many do."""
    layers = [module for module in model.modules() if isinstance(module, Linear) and _plain(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer, layer.forward)
    return len(layers)


def _plain(layer: Any) -> bool:
    """Whether the layer is W x + s B A x and nothing more."""
    return (
        list(layer.lora_A) == [ADAPTER]
        and type(layer.base_layer) is torch.nn.Linear
        and isinstance(layer.lora_dropout[ADAPTER], torch.nn.Identity)
        and not layer.lora_variant
        and layer.lora_B[ADAPTER].bias is None
        and not layer.base_layer.weight.requires_grad
    )


def _forward(layer: Any, of_peft: Callable[..., torch.Tensor], x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    weights = layer.base_layer.weight, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    shared_out = any(hasattr(weight, "ds_id") for weight in weights)
    if layer.disable_adapters or layer.merged or shared_out or {weight.dtype for weight in weights} != {x.dtype}:
        return of_peft(x, *args, **kwargs)
    return _LowRank.apply(x, *weights, layer.base_layer.bias, layer.scaling[ADAPTER])


class _LowRank(torch.autograd.Function):
    """x [..., in] to W x + b + s B A x [..., out], with gradients for x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
        bias: torch.Tensor | None,
        scale: float,
    ) -> torch.Tensor:
        """`down` is A [rank, in], `up` is B [out, rank]."""
        rows = x.flatten(0, -2)
        narrow = rows @ down.t()
        out = torch.nn.functional.linear(rows, weight, bias)
        out.addmm_(narrow, up.t(), alpha=scale)
        ctx.save_for_backward(rows, narrow, weight, down, up)
        ctx.scale = scale
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        """dA = s (B' g)' x; dB = s g' (A x); dx = W' g + s A' B' g."""
        rows, narrow, weight, down, up = ctx.saved_tensors
        shape, out = gradients[0].shape, gradients[0].flatten(0, -2)
        back = (out @ up).mul_(ctx.scale)
        into = None
        if ctx.needs_input_grad[0]:
            into = (out @ weight).addmm_(back, down).view(*shape[:-1], -1)
        return into, None, back.t() @ rows, (out.t() @ narrow).mul_(ctx.scale), None, None
