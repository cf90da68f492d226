"""Supervised fine-tuning: what the stage writes, and one real run of two processes on a two-layer model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import verify_manifest, write_manifest
from tasks.core.params import load_params
from tasks.train.sft.stage import describe, metrics_of, with_enough_steps
from tasks.train.tuning.batches import plan_epoch
from tests.training import answer_losses, run_stage

RESULT = {
    "history": [[0, "validation", 4.0], [1, "train", 3.0], [2, "train", 2.0], [2, "validation", 2.5]]
    + [[3, "train", 1.0], [4, "train", 2.0], [4, "validation", 1.5]],
    "steps": 4,
    "kept_step": 4,
    "tokens": 70,
}


def test_the_train_loss_is_the_last_epoch_s_mean_and_the_validation_loss_that_of_the_kept_weights() -> None:
    """Two epochs of two steps: (1 + 2) / 2."""
    counts = {"steps": 4, "kept_step": 4, "tokens": 70, "epochs": 2}
    losses = {"train_loss": 1.5, "validation_loss_before": 4.0, "validation_loss": 1.5}
    assert metrics_of(RESULT, epochs=2) == counts | losses
    assert metrics_of(RESULT | {"kept_step": 2}, epochs=2)["validation_loss"] == 2.5


def test_small_data_gets_as_many_epochs_as_make_up_the_steps_that_are_asked_for(root: Path) -> None:
    """60 examples in two processes of 4 are 8 steps an epoch: 100 steps take 13 epochs; 800 make 100 at once."""
    settings = load_params(root / "params.yaml").sft.model_copy(
        update={"epochs": 2, "min_steps": 100, "batch_size": 4, "gradient_accumulation": 1}
    )
    assert with_enough_steps(settings, examples=60, processes=2).epochs == 13
    assert with_enough_steps(settings, examples=800, processes=2).epochs == 2
    assert with_enough_steps(settings.model_copy(update={"min_steps": 0}), examples=60, processes=2).epochs == 2


def test_a_night_goes_on_at_a_share_of_the_rate_and_gets_no_more_epochs(workspace: Any) -> None:
    """Whole weights too, which are no adapter to begin from: 2e-4 as set, a quarter of it in a night."""
    folder = workspace(learning_rate=2e-4, min_steps=100)
    job = describe(load_params(), load_domain("construction"))
    assert job.settings.learning_rate == 2e-4 and job.settings.epochs > load_params().sft.epochs and job.keep_best
    shutil.copytree(folder / layout.BASE_MODEL, folder / layout.START / "model")
    write_manifest(folder / layout.START)
    night = describe(load_params(), load_domain("construction"))
    assert night.settings.learning_rate == pytest.approx(5e-5) and not night.keep_best
    assert night.settings.epochs == load_params().sft.epochs


def test_checkpoints_are_for_one_job_only(workspace: Any) -> None:
    """Settings, seed, data, prompt, launch and model shape the weights; how often is saved does not."""
    folder = workspace(save_every=2, learning_rate=2e-4)

    def digest() -> str:
        return describe(load_params(), load_domain("construction")).digest()

    first = digest()
    edits = [
        ("params.yaml", "save_every: 2", "save_every: 3", True),
        ("params.yaml", "learning_rate: 0.0002", "learning_rate: 0.0003", False),
        ("params.yaml", "seed: 42", "seed: 43", False),
        ("data/mix/train.jsonl", "and rest.", "and sleep.", False),
        ("domains/construction/prompts/system.txt", "", "Be kind. ", False),
        ("infra/accelerate/cpu.yaml", "num_processes: 2", "num_processes: 1", False),
        ("infra/deepspeed/cpu_zero2.json", '"reduce_scatter": true', '"reduce_scatter": false', False),
    ]
    for name, old, new, same in edits:
        text = (folder / name).read_text()
        assert old in text, name
        (folder / name).write_text(text.replace(old, new, 1))
        assert (digest() == first) is same, (name, new)
        (folder / name).write_text(text)


def first_step_loss(folder: Path, batch_size: int, accumulated: int) -> float:
    """The mean over all answer tokens of the first update, over both processes and all accumulated batches."""
    losses = answer_losses(folder, "train")
    plan = plan_epoch([length for length, _, _ in losses], batch_size, 2, seed=42, epoch=0)
    chosen = [losses[index] for step in plan[:accumulated] for hand in step for index in hand]
    return sum(total for _, total, _ in chosen) / sum(tokens for _, _, tokens in chosen)


def test_two_processes_train_an_adapter_under_deepspeed(workspace: Any, root: Path) -> None:
    """11 examples, 2 × 2 a step: 3 steps of 4, 4 and 3; with 2 steps accumulated, 2 updates an epoch, 4 in all.

    Three validation examples among two processes: one process sees a filler, which must not count.
    """
    folder = workspace(precision="fp32", batch_size=2, gradient_accumulation=2, epochs=2, save_every=3)
    metrics, said = run_stage("sft", folder, root)
    assert "left" in said and "sft: 4 steps" in said

    assert (metrics["steps"], metrics["examples"]) == (4, 11)
    per_example = [total / tokens for _, total, tokens in answer_losses(folder, "validation")]
    assert metrics["validation_loss_before"] == pytest.approx(sum(per_example) / 3, abs=1e-4)
    assert metrics["validation_loss"] < metrics["validation_loss_before"]
    # A LoRA of rank r adds r × (inputs + outputs) to each projection; 576 wide, 192 for keys and values, 1536 inside.
    widths = [(576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)]
    assert metrics["trainable_parameters"] == 2 * 16 * sum(map(sum, widths))

    rows = list(csv.DictReader((folder / "reports/plots/sft_loss.csv").open()))
    seen = [f"{row['step']} {row['split']}" for row in rows]
    assert seen == ["0 validation", "1 train", "2 train", "2 validation", "3 train", "4 train", "4 validation"]
    # Before the first update LoRA changes nothing, so the first loss is the base model's.
    assert float(rows[1]["loss"]) == pytest.approx(first_step_loss(folder, batch_size=2, accumulated=2), abs=1e-4)

    verify_manifest(folder / "models/sft/adapter")
    config = json.loads((folder / "models/sft/adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "SmolLM2-135M-Instruct"
    assert str(folder) not in json.dumps(config)
    left = sorted(path.name for path in (folder / "models/sft/adapter").iterdir())
    assert left == ["MANIFEST.json", "adapter_config.json", "adapter_model.safetensors"]
    assert list((folder / ".flywheel/checkpoints/sft").iterdir()) == []
