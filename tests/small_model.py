"""A model small enough to count by hand, and an adapter for it."""

from __future__ import annotations

from tasks.core.training_params import LoraParams
from tasks.train.run.shape import ModelShape

# One layer of width 8, inner width 16, two heads of 4 (one for keys and values), 32 words, the head tied.
SMALL = ModelShape(
    layers=1,
    hidden=8,
    inner=16,
    heads=2,
    key_value_heads=1,
    head_width=4,
    vocabulary=32,
    parameters=256 + 576 + 24,
    tied=True,
    matrices=(
        ("q_proj", (8, 8)),
        ("k_proj", (4, 8)),
        ("v_proj", (4, 8)),
        ("o_proj", (8, 8)),
        ("gate_proj", (16, 8)),
        ("up_proj", (16, 8)),
        ("down_proj", (8, 16)),
    ),
)
LORA = LoraParams(rank=2, alpha=4, dropout=0.0, target_modules=["q_proj", "down_proj"])
