"""What a training is said to need, against figures worked out by hand and against what the libraries really build."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.params import load_params
from tasks.core.training_params import FullParams, Method
from tasks.train.sizing.formula import NOTES, Training, checkpoint_bytes, memory_of, operations
from tasks.train.sizing.shapes import ShapeError, read_shape, trained_parameters
from tasks.train.sizing.workload import Batch
from tests.small_model import LORA, SMALL

FULL = FullParams(train_embeddings=True)


def training(section: Any = FULL, precision: Any = "fp32", zero: int = 2, processes: int = 1, **more: Any) -> Training:
    return Training(SMALL, section, precision, **{"on_cpu": True, "processes": processes, "zero": zero, **more})


def test_parameters_by_hand() -> None:
    """LoRA: q_proj 2 × (8 + 8) = 32, down_proj 2 × (8 + 16) = 48. Every weight, and all but the table of 32 × 8."""
    assert trained_parameters(SMALL, LORA) == 80
    assert trained_parameters(SMALL, FULL) == 856
    assert trained_parameters(SMALL, FullParams(train_embeddings=False)) == 856 - 256


@pytest.mark.parametrize(
    ("zero", "expected"),
    [(0, (3424, 3424, 10272)), (1, (3424, 3424, 5136)), (2, (3424, 1712, 5136)), (3, (1712, 1712, 5136))],
)
def test_zero_shares_what_it_says_it_shares(zero: int, expected: tuple[int, ...]) -> None:
    """fp32, 856 weights: 4 bytes of weights, 4 of gradients, 4 + 8 of optimiser each; two processes halve by stage."""
    memory = memory_of(training(zero=zero, processes=2), Batch(1, 4, 2))
    assert (memory["weights"], memory["gradients"], memory["optimiser"]) == expected


def test_activations_and_logits_by_hand() -> None:
    """fp32, 2 rows of 4 tokens, 3 of them scored; and packed, 5 tokens without padding and without probabilities.

    A position: norms' inputs 2 × 8 × 4 and results 2 × 8 × 4, attention's four 4 × 8 × 4, inner four 4 × 16 × 4:
    512 bytes, times 8 positions = 4096; probabilities 2 heads × 4 × 4 × 2 rows × 4 bytes = 256.
    Logits: 6 × 32 × 4 bytes × 5 copies = 3840.
    """
    memory = memory_of(training(), Batch(2, 4, 3))
    assert (memory["activations"], memory["logits"]) == (4352, 3840)
    assert memory_of(training(), Batch(2, 4, 3, filled=5))["activations"] == 2560


def test_operations_by_hand() -> None:
    """576 linear weights × 2 × 4 tokens = 4608; head 256 × 2 × 2 = 1024; attention 4 × 8 × 16 = 512; 80 of LoRA."""
    batch, lora = Batch(1, 4, 2), training(LORA)
    assert operations(training(), batch) == 3 * (4608 + 1024 + 512)
    assert operations(training(), batch, backward=False) == 4608 + 1024 + 512
    assert operations(lora, batch) == 2 * (4608 + 1024) + 3 * (512 + 2 * 80 * 4)
    assert operations(lora, batch, backward=False) == 4608 + 1024 + 512 + 2 * 80 * 4


def test_offloaded_state_counts_as_main_memory_of_a_gpu_machine() -> None:
    memory = memory_of(training(precision="bf16", on_cpu=False, offload_optimiser=True), Batch(1, 4, 2))
    assert (memory["optimiser"], memory["host"]) == (0, 856 * 12)


def test_an_online_training_holds_a_reward_model_and_copies_of_the_policy() -> None:
    """856 × 4 bytes each, whole in every process; 8 answers of 4 tokens with keys and values of 4 numbers.

    8 × 4 × 32 bytes are more than the 2176 that learning keeps, less 1280 of logits, only from 32 answers on.
    """
    few, many = (memory_of(training(zero=3, processes=2, answers=n), Batch(1, 4, 2)) for n in (8, 32))
    assert few["companions"] == many["companions"] == 6 * 3424
    assert (few["activations"], many["activations"]) == (2176, 32 * 4 * 32 - 1280)
    assert memory_of(training(), Batch(1, 4, 2))["companions"] == 0


def test_a_checkpoint_s_size_by_hand() -> None:
    """fp32: weights twice, the tied head of 32 × 8, 12 bytes of optimiser for each that is trained, and notes.

    An online method's holds two more copies of what is trained.
    """
    assert checkpoint_bytes(training(LORA)) == 2 * 320 + 1024 + 80 * 12 + NOTES
    assert checkpoint_bytes(training()) == 2 * 3424 + 1024 + 856 * 12 + NOTES
    assert checkpoint_bytes(training(answers=8)) - checkpoint_bytes(training()) == 2 * 3424


def test_every_method_trains_as_many_parameters_as_peft_says(root: Path, tiny_model: Path) -> None:
    """Counted from the file's headers alone, compared with the model that the library builds."""
    from transformers import AutoModelForCausalLM

    from tasks.train.run.job import TrainingJob
    from tasks.train.run.methods import parameter_counts, prepared

    params = load_params(root / "params.yaml")
    shape = read_shape(tiny_model)
    for method in get_args(Method):
        if method in ("qlora", "pissa", "osf"):  # need a GPU, or a decomposition; counted like lora, or below
            continue
        section = params.methods.of(method)
        job = TrainingJob(
            stage="sft",
            base_model=tiny_model,
            base_digest="",
            data={},
            system="",
            seed=0,
            processes=1,
            settings=params.sft.model_copy(update={"method": method}),
            method=section.model_dump(),
            launch_files={},
        )
        model = prepared(AutoModelForCausalLM.from_pretrained(tiny_model), job)
        built = parameter_counts(model)["trainable_parameters"]
        assert (method, trained_parameters(shape, section)) == (method, built)


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="no safetensors weights; run the stage base_model"):
        read_shape(tmp_path)
