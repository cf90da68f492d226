"""Packed batches: what the model computes for an example does not depend on what lies beside it in the row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from tasks.train.sft import one_row
from tasks.train.tuning.trainer import cross_entropy_sum

LENGTHS = (7, 30, 1, 19)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Examples of different lengths; the second half of each is the answer."""
    generator = torch.Generator().manual_seed(3)
    ids = [torch.randint(5, 40_000, (length,), generator=generator).tolist() for length in LENGTHS]
    return [{"input_ids": row, "labels": [-100] * (len(row) // 2) + row[len(row) // 2 :]} for row in ids]


def load(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Any:
    return load(tiny_model)


@pytest.fixture(scope="module")
def packed(tiny_model: Path) -> Any:
    model = load(tiny_model)
    one_row.use_one_row_attention(model, max_tokens=512)
    return model


def alone(model: Any, row: dict[str, Any]) -> Any:
    """Logits of one example by itself: [tokens, words]."""
    return model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0]


def together(model: Any, batch: dict[str, Any]) -> Any:
    """Logits of a packed batch, an element an example."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    return model(**inputs, use_cache=False).logits[0].split(batch["lengths"].tolist())


def test_an_example_has_the_logits_it_has_alone(plain: Any, packed: Any, rows: Any) -> None:
    with torch.no_grad():
        for row, logits in zip(rows, together(packed, one_row.in_one_row(rows)), strict=True):
            assert (logits - alone(plain, row)).abs().max() < 1e-5 * alone(plain, row).abs().max()


def test_another_neighbour_does_not_change_a_bit(packed: Any, rows: Any) -> None:
    other = [rows[0], {**rows[1], "input_ids": [token + 1 for token in rows[1]["input_ids"]]}, *rows[2:]]
    with torch.no_grad():
        before, after = (together(packed, one_row.in_one_row(chosen)) for chosen in (rows, other))
    assert all(torch.equal(before[number], after[number]) for number in (0, 2, 3))
    assert not torch.equal(before[1], after[1])


def test_gradients_are_those_of_the_examples_one_by_one(plain: Any, packed: Any, rows: Any) -> None:
    """The loss is a sum over examples, so is its gradient."""
    weight = "model.layers.0.self_attn.k_proj.weight"
    batch = one_row.in_one_row(rows)
    logits = torch.cat(together(packed, batch))
    cross_entropy_sum(logits[:-1], batch["labels"][0, 1:]).backward()
    for row in rows:
        cross_entropy_sum(alone(plain, row)[:-1], torch.tensor(row["labels"][1:], dtype=torch.long)).backward()
    expected, found = (model.get_parameter(weight).grad for model in (plain, packed))
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_packed_row_counts_positions_anew_and_scores_no_first_token() -> None:
    """Two examples of 2 and 3 tokens; 6 may not be predicted from 5, which belongs to another."""
    batch = one_row.in_one_row(
        [{"input_ids": [4, 5], "labels": [4, 5]}, {"input_ids": [6, 7, 8], "labels": [6, -100, 8]}]
    )
    assert batch["input_ids"].tolist() == [[4, 5, 6, 7, 8]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2]]
    assert batch["labels"].tolist() == [[-100, 5, -100, -100, 8]]
    assert batch["lengths"].tolist() == [2, 3]


def test_padded_batches_are_refused_by_packed_attention(packed: Any, rows: Any) -> None:
    with pytest.raises(one_row.OneRowError, match="needs a batch of"):
        alone(packed, rows[0])


def test_a_window_shorter_than_an_example_may_be_is_refused() -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    config = MistralConfig(**small, intermediate_size=8, vocab_size=16, sliding_window=64)
    model = AutoModelForCausalLM.from_config(config)
    one_row.use_one_row_attention(model, max_tokens=64)
    with pytest.raises(one_row.OneRowError, match="64 tokens at a time"):
        one_row.use_one_row_attention(model, max_tokens=65)
