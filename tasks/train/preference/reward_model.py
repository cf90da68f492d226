"""The reward model as the online methods use it: frozen, scoring whole conversations in batches. Needs torch.

The base model with a score head in place of its language head (Stiennon et al. 2020, arXiv 2009.01325). Limits: only
differences between answers to one prompt mean something.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tasks.train.run.handover import ADAPTER_CONFIG


class RewardModel(torch.nn.Module):
    """Scores conversations: a sequence classifier with one label, of which nothing is trained."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.pad_token_id: int = model.config.pad_token_id

    @torch.no_grad()
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Scores (rows,) in fp32 of conversations: ids and mask (rows, columns), padded on either side by anything."""
        padded = input_ids.masked_fill(attention_mask == 0, self.pad_token_id)
        scores: torch.Tensor = self.model(input_ids=padded, attention_mask=attention_mask, use_cache=False).logits
        return scores[:, 0].float()


def load_reward_model(
    trained: Path, base: Path, dtype: torch.dtype, pad_token_id: int, attention: str = "eager"
) -> RewardModel:
    """The reward model that stage reward left: models/reward/adapter (over `base`) or models/reward/model."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    adapter = (trained / ADAPTER_CONFIG).is_file()
    model = AutoModelForSequenceClassification.from_pretrained(
        base if adapter else trained,
        num_labels=1,
        dtype=dtype,
        attn_implementation=attention,
        pad_token_id=pad_token_id,
    )
    if adapter:
        model = PeftModel.from_pretrained(model, trained)
    return RewardModel(model)
