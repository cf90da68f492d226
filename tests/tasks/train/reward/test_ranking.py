"""The ranking loss of the reward model, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tasks.train.reward.ranking import collate, ranking_loss


def nats(margin: float) -> float:
    """−log σ(margin)."""
    return math.log(1 + math.exp(-margin))


def test_a_prompt_s_pairs_count_as_one_in_the_mean_over_prompts() -> None:
    """Three answers of scores 3, 1, 0 ranked in full, margins 2, 3, 1; and one pair of margin −1."""
    scores = torch.tensor([3.0, 1.0, 0.0, 0.5, 1.5])
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2], [3, 4]])
    loss = ranking_loss(scores, pairs, torch.tensor([0, 0, 0, 1]))
    assert loss.item() == pytest.approx(((nats(2) + nats(3) + nats(1)) / 3 + nats(-1)) / 2, abs=1e-6)


def test_a_batch_has_a_row_an_answer_and_counts_on_through_its_prompts() -> None:
    rows = [
        {"sequences": [[5, 6], [5, 7, 8], [5]], "pairs": [[0, 1], [1, 2]]},
        {"sequences": [[9, 9], [9]], "pairs": [[1, 0]]},
    ]
    batch = {name: value.tolist() for name, value in collate(rows, 0).items()}
    assert batch == {
        "input_ids": [[5, 6, 0], [5, 7, 8], [5, 0, 0], [9, 9, 0], [9, 0, 0]],
        "attention_mask": [[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]],
        "pairs": [[0, 1], [1, 2], [4, 3]],
        "prompts": [0, 0, 1],
    }
