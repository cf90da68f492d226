"""Batches without padding: a process's examples of a step end to end in one row, none of which sees another.

For attention alone the tokens are laid out one example a row, under a causal mask. Needs torch. Limits: models whose
attention is chosen through transformers' AttentionInterface and looks at the whole sequence; no virtual tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tasks.core.errors import FlywheelError
from tasks.train.tuning.batches import IGNORED

NAME = "packed"  # of the attention, in transformers' interface


class OneRowError(FlywheelError):
    """The model cannot be trained on packed rows."""


def in_one_row(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """One row of all examples.

    `input_ids`, `labels` and `position_ids` have shape [1, tokens]; positions count from 0 in each example, and the
    first label of each is left out, so that no example is predicted from the one before it. `lengths`: [examples].
    """
    ids = [token for row in rows for token in row["input_ids"]]
    labels = [label for row in rows for label in (IGNORED, *row["labels"][1:])]
    positions = [position for row in rows for position in range(len(row["input_ids"]))]
    return {
        "input_ids": torch.tensor([ids]),
        "labels": torch.tensor([labels]),
        "position_ids": torch.tensor([positions]),
        "lengths": torch.tensor([len(row["input_ids"]) for row in rows]),
    }


def use_one_row_attention(model: Any, max_tokens: int) -> None:
    """Compute attention by `lengths`. Raises OneRowError: the model's window is shorter than an example may be."""
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if window and window < max_tokens:
        raise OneRowError(f"the model sees {window} tokens at a time: set packing to false or max_tokens to {window}")
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    lengths: torch.Tensor | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of packed examples; query, key, value and result are [1, heads, tokens, width].

    On CPU the model's own plain attention, on GPU the fused one. Raises OneRowError: the batch is not `in_one_row`'s.
    """
    if lengths is None or attention_mask is not None or query.shape[0] != 1:
        raise OneRowError("packed attention needs a batch of tasks.train.sft.one_row.in_one_row")
    examples, longest = len(lengths), int(lengths.max())
    places = _places(lengths, longest)
    grid = [_spread(states, places, examples, longest) for states in (query, key, value)]
    if query.device.type == "cpu":
        mask = _causal(longest, query.dtype)
        output, _ = _plain_attention(module)(module, *grid, mask, **options)
    else:
        output, _ = sdpa_attention_forward(module, *grid, None, is_causal=True, **options)
    return _Gather.apply(output, places), None


def _plain_attention(module: Any) -> Any:
    """What the model's own file calls `eager_attention_forward`: it knows of soft caps and shared heads."""
    return sys.modules[type(module).__module__].eager_attention_forward


def _places(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """Where each token stands in a grid of one example a row, counted through: [tokens]."""
    rows = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    begins = torch.cumsum(lengths, 0) - lengths
    return torch.arange(len(rows), device=lengths.device) - begins[rows] + rows * longest


def _causal(longest: int, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the scores: nothing for what came before, the lowest number for what comes after."""
    return torch.full((longest, longest), torch.finfo(dtype).min, dtype=dtype).triu(1)


def _spread(states: torch.Tensor, places: torch.Tensor, examples: int, longest: int) -> torch.Tensor:
    """[1, heads, tokens, width] to [examples, heads, longest, width]; empty places are 0."""
    tokens = states[0].transpose(0, 1)
    grid = states.new_zeros(examples * longest, *tokens.shape[1:]).index_copy_(0, places, tokens)
    return grid.view(examples, longest, *tokens.shape[1:]).transpose(1, 2)


class _Gather(torch.autograd.Function):
    """[examples, longest, heads, width] to [1, tokens, heads, width]; backward copies where torch's would add."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """What stands in the empty places is dropped."""
        ctx.save_for_backward(places)
        ctx.shape = output.shape
        return output.flatten(0, 1).index_select(0, places).unsqueeze(0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Empty places get none."""
        [places] = ctx.saved_tensors
        grid = gradients[0].new_zeros(ctx.shape)
        grid.flatten(0, 1).index_copy_(0, places, gradients[0][0])
        return grid, None
