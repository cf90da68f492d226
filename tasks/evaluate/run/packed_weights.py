"""Weights in the order in which the processor multiplies them, so that not every pass puts them into it again.

Runs only in the evaluation environment. Results are equal to the last bit. Limits: the weights take their room twice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

ROWS = 64  # tokens of a pass that the order is chosen for; others are multiplied as rightly


def pack_weights(model: Any) -> None:
    """Pack the linear layers of a model that computes in bf16 on a processor that can; leave others as they are."""
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return
    for layer in model.modules():
        if type(layer) is torch.nn.Linear:
            weights = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), ROWS)
            layer.forward = partial(_multiply, weights, layer.bias)


def _multiply(weights: torch.Tensor, bias: torch.Tensor | None, read: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(read, weights, bias, "none", [], "")
