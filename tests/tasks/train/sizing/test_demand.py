"""What a training is said to need, against figures worked out by hand and against what the libraries really build."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tasks.core.params import load_params
from tasks.core.training_params import FullParams, Method
from tasks.train.sizing.demand import Batch, Partition, Training, memory_of, operations
from tasks.train.sizing.shapes import ShapeError, read_shape, trained_parameters
from tests.small_model import LORA, SMALL

FULL = FullParams(train_embeddings=True)


def training(method: Method = "full", precision: Any = "fp32", stage: int = 2, processes: int = 1) -> Training:
    section = FULL if method == "full" else LORA
    return Training(SMALL, method, section, precision, Partition(stage, processes), on_cpu=True)


def test_lora_trains_two_thin_matrices_a_place() -> None:
    """q_proj: 2 × (8 + 8) = 32; down_proj: 2 × (8 + 16) = 48."""
    assert trained_parameters(SMALL, "lora", LORA) == 80


def test_full_tuning_without_embeddings_leaves_the_table_out() -> None:
    assert trained_parameters(SMALL, "full", FullParams(train_embeddings=False)) == 856 - 256


def test_zero_shares_what_it_says_it_shares() -> None:
    """fp32, 856 weights: 4 bytes of weights, 4 of gradients, 4 + 8 of optimiser each; two processes halve by stage."""
    found = {}
    for stage in (0, 1, 2, 3):
        memory = memory_of(training(stage=stage, processes=2), Batch(1, 4, 2))
        found[stage] = (memory.weights, memory.gradients, memory.optimiser)
    assert found == {
        0: (3424, 3424, 10272),
        1: (3424, 3424, 5136),
        2: (3424, 1712, 5136),
        3: (1712, 1712, 5136),
    }


def test_activations_and_logits_by_hand() -> None:
    """fp32, 2 rows of 4 tokens, 3 of them scored.

    A position: norms' inputs 2 × 8 × 4 and results 2 × 8 × 4, attention's four 4 × 8 × 4, inner four 4 × 16 × 4:
    512 bytes, times 8 positions = 4096; probabilities 2 heads × 4 × 4 × 2 rows × 4 bytes = 256.
    Logits: 6 × 32 × 4 bytes × 5 copies = 3840.
    """
    memory = memory_of(training(), Batch(2, 4, 3))
    assert (memory.activations, memory.logits) == (4352, 3840)


def test_packed_rows_are_counted_without_padding_and_keep_no_probabilities() -> None:
    """5 tokens in two rows of at most 4: 5 × 512 bytes."""
    assert memory_of(training(), Batch(2, 4, 3, filled=5)).activations == 2560


def test_operations_of_a_full_pass_by_hand() -> None:
    """576 linear weights × 2 × 3 × 4 tokens = 13824; head 256 × 2 × 3 × 2 = 3072; attention 4 × 8 × 16 × 3 = 1536."""
    assert operations(training(), Batch(1, 4, 2)) == 13824 + 3072 + 1536


def test_offloaded_state_counts_as_main_memory_of_a_gpu_machine() -> None:
    part = Partition(2, 1, offload_optimiser=True)
    memory = memory_of(Training(SMALL, "full", FULL, "bf16", part, on_cpu=False), Batch(1, 4, 2))
    assert (memory.optimiser, memory.host) == (0, 856 * 12)


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
        assert (method, trained_parameters(shape, method, section)) == (method, built)


def test_a_folder_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="no safetensors weights; run the stage base_model"):
        read_shape(tmp_path)
