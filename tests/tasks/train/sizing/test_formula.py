"""What a training is said to need, against figures worked out by hand and against what the libraries really build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.training_params import FullParams, LoraParams, Method
from tasks.train.run.shape import ModelShape, ShapeError, read_shape, trained_parameters
from tasks.train.sizing.formula import NOTES, Sizing, disk_of, memory_of, operations
from tasks.train.sizing.workload import Batch, Workload

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
ONE = Batch(1, 4, 2)


def sizing(method: Method = "full", batch: Batch = ONE, **more: Any) -> Sizing:
    """Of the small model, every weight or LoRA, in fp32 on one process."""
    work = Workload(steps=1, examples=1, tokens=4, learnt=4, looked=0, saves=1, largest=batch)
    section = FullParams(train_embeddings=True) if method == "full" else LORA
    own = {"precision": "fp32", "on_cpu": True, "processes": 1, "zero": 2, **more}
    return Sizing(shape=SMALL, method=method, section=section, work=work, **own)


def test_parameters_by_hand() -> None:
    """LoRA: q_proj 2 × (8 + 8) = 32, down_proj 2 × (8 + 16) = 48. Every weight, and all but the table of 32 × 8."""
    assert sizing("lora").trained == 80
    assert sizing().trained == 856
    assert trained_parameters(SMALL, "full", FullParams(train_embeddings=False)) == 856 - 256


@pytest.mark.parametrize(
    ("zero", "expected"),
    [(0, (3424, 3424, 10272)), (1, (3424, 3424, 5136)), (2, (3424, 1712, 5136)), (3, (1712, 1712, 5136))],
)
def test_zero_shares_what_it_says_it_shares(zero: int, expected: tuple[int, ...]) -> None:
    """fp32, 856 weights: 4 bytes of weights, 4 of gradients, 4 + 8 of optimiser each; two processes halve by stage."""
    memory = memory_of(sizing(zero=zero, processes=2))
    assert (memory["weights"], memory["gradients"], memory["optimiser"]) == expected


def test_activations_with_logits_by_hand() -> None:
    """fp32, 2 rows of 4 tokens, 3 of them scored; and packed, 5 tokens without padding and without probabilities.

    A position: norms' inputs 2 × 8 × 4 and results 2 × 8 × 4, attention's four 4 × 8 × 4, inner four 4 × 16 × 4: 512.
    Probabilities: 2 heads × 4² × 2 rows × 4 bytes. Logits: 2 × 3 × 32 × 4 bytes, five times.
    """
    logits = 2 * 3 * 32 * 4 * 5
    assert memory_of(sizing(batch=Batch(2, 4, 3)))["activations"] == 8 * 512 + 256 + logits
    assert memory_of(sizing(batch=Batch(2, 4, 3, filled=5)))["activations"] == 5 * 512 + logits


def test_what_is_offloaded_counts_as_main_memory_of_a_gpu_machine() -> None:
    memory = memory_of(sizing(precision="bf16", on_cpu=False, offloaded=("optimiser",)))
    assert (memory["optimiser"], memory["host"]) == (0, 856 * 12)
    assert memory["total"] == sum(memory.values()) - memory["total"] - memory["host"]


def test_an_online_training_holds_a_reward_model_and_copies_of_the_policy() -> None:
    """856 × 4 bytes each, whole in every process, beside half of its own weights."""
    assert memory_of(sizing(zero=3, processes=2, online=True))["weights"] == 1712 + 6 * 3424


def test_operations_of_a_token_by_hand() -> None:
    """576 weights and, for half of the tokens, the head's 256: twice forward, four times for LoRA, six for all."""
    each = 576 + 128
    assert operations(sizing("lora"), backward=False) == 2 * each
    assert (operations(sizing("lora")), operations(sizing())) == (4 * each, 6 * each)


def test_a_checkpoint_s_size_by_hand() -> None:
    """fp32: weights twice, the tied head of 32 × 8, 12 bytes of optimiser for each that is trained, notes; results."""
    assert disk_of(sizing("lora")) == 3 * (3 * 320 + 1024 + 80 * 12 + NOTES)
    assert disk_of(sizing()) == 3 * (3 * 3424 + 1024 + 856 * 12 + NOTES)


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="no safetensors weights; run the stage base_model"):
        read_shape(tmp_path)
