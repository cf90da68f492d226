"""Answers that go on side by side: their keys and values, what is guessed of them, and the attention over both.

Runs only in the evaluation environment.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED = "grouped"  # the name under which the attention below is known to transformers


class SlotLayer(DynamicLayer):
    """Keys and values of answers that are at different places: each has a row, whose columns are its tokens."""

    def __init__(self, like: DynamicLayer, slots: int, columns: int) -> None:
        super().__init__()
        self.keys = like.keys.new_zeros(slots, like.keys.shape[1], columns, like.keys.shape[3])
        self.values = like.values.new_zeros(slots, like.values.shape[1], columns, like.values.shape[3])
        self.is_initialized = True

    def put(self, slot: int, other: DynamicLayer, row: int = 0) -> None:
        """Copy a row of another layer (or of this one) into a slot."""
        columns = other.keys.shape[2]
        self.keys[slot, :, :columns] = other.keys[row]
        self.values[slot, :, :columns] = other.values[row]

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in new tokens at `places` (rows, tokens), which is set before each pass."""
        slots = torch.arange(len(keys), device=keys.device)
        self.keys[slots[:, None], :, self.places] = keys.transpose(1, 2)
        self.values[slots[:, None], :, self.places] = values.transpose(1, 2)
        return self.keys[: len(slots), :, : self.used], self.values[: len(slots), :, : self.used]


def guessed(ids: list[int], prompt: int, most: int) -> list[int]:
    """What came after the last tokens where they stood before: eight of them in the answer, three in the prompt.

    Answers quote passages, and some go round in circles. The prompt is so many tokens long.
    """
    for end in range(len(ids) - 1, 2, -1):
        alike = 3 if end < prompt else 8
        if ids[end - alike : end] == ids[-alike:]:
            return ids[end : min(end + most, prompt)] if end < prompt else ids[end : end + most]
    return []


def attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, **settings: Any
) -> tuple[torch.Tensor, None]:
    """transformers' own, but heads that share keys are asked as one with more queries, where it copies the keys.

    Queries are (rows, heads, tokens, size), keys and values have fewer heads; given are (rows, tokens, heads, size).
    Texts that are read from their beginning are left to transformers: there it is no faster, and other in the last bit.
    """
    rows, heads, tokens, size = query.shape
    shared = heads // key.shape[1]
    if mask is None or tokens in (1, key.shape[2]) or shared == 1:
        return sdpa_attention_forward(module, query, key, value, mask, **settings)
    asked, hidden = query.reshape(rows, -1, shared * tokens, size), mask.repeat(1, 1, shared, 1)
    found = torch.nn.functional.scaled_dot_product_attention(asked, key, value, hidden, scale=settings["scaling"])
    return found.reshape(rows, heads, tokens, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, attend)
AttentionMaskInterface.register(GROUPED, sdpa_mask)
