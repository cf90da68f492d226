"""Training on a GPU, by the project's own launches; a model of two layers. Skipped where PyTorch sees no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from tasks.core import layout
from tasks.core.files import verify_manifest, write_manifest
from tasks.core.pointers import ADAPTER
from tasks.core.records import write_jsonl
from tasks.core.training_params import Method
from tasks.train.run.checkpoints import step_of
from tests import kills
from tests.kills import SFT
from tests.preferences import some_preferences
from tests.tasks.train.conftest import an_example
from tests.tasks.train.run.test_methods import train_all
from tests.training import lay_training, run_stage

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here"),
]
STEPS = {"batch_size": 2, "epochs": 2, "learning_rate": 1e-3}


@pytest.fixture(autouse=True)
def on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests compute on processors in this very process, and leave word of it."""
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name).read_text())
    return found


@pytest.mark.parametrize("name", ["gpu1", "gpu1_offload", "gpu1_zero3_offload"])
def test_one_gpu_trains_an_adapter_in_bf16(name: str, workspace: Any, root: Path) -> None:
    """Eleven examples, two a step: six steps an epoch. `auto` is bf16 on GPUs since Ampere."""
    folder = workspace(launch=name, **STEPS)
    metrics, said = run_stage("sft", folder, root)
    assert "Warning" not in said
    measured = read(folder, ".flywheel/measured/sft.json")
    assert metrics["steps"] == 12 and metrics["validation_loss"] < metrics["validation_loss_before"]
    assert measured["precision"] == "bf16" and measured["peak_gpu_bytes"] > 0
    verify_manifest(folder / "models/sft/adapter")


def test_every_method_trains_on_one_gpu(workspace: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight examples, two a step: four steps. Those without virtual tokens also packed, as they are by default."""
    workspace(train=8, launch="gpu1", precision="bf16", **STEPS | {"epochs": 1})
    monkeypatch.setenv("PYTHONPATH", str(root))
    train_all("gpu1", get_args(Method), steps=4, packing=True)


def lay_chain(folder: Path, root: Path, model: Path, method: str, alignment: str) -> Path:
    """A workspace whose every training stage is launched on one GPU, by one method."""
    stage = {"method": method, "launch": "gpu1", "precision": "bf16"}
    few = {"prompts": 4, "answers": 2, "max_answer_tokens": 8, "updates": 2}
    sections = {"reward": stage, "align": stage | {"alignment": alignment, "rollout": few}}
    examples = map(an_example, range(12)), map(an_example, range(100, 104))
    lay_training(folder, root, model, *examples, stage | STEPS, sections)
    write_jsonl(folder / "data/pairs/train.jsonl", some_preferences(0, 6))
    write_jsonl(folder / "data/pairs/validation.jsonl", some_preferences(100, 3))
    return folder


@pytest.mark.parametrize("alignment", ["dpo", "kto", "grpo", "ppo"])
def test_qlora_is_trained_aligned_and_packaged_as_an_adapter_of_the_whole_base(
    alignment: str, tmp_path: Path, root: Path, tiny_model: Path
) -> None:
    folder = lay_chain(tmp_path, root, tiny_model, "qlora", alignment)
    for stage in ("sft", "reward", "align", "package"):
        run_stage(stage, folder, root)
    metrics = read(folder, "reports/details/align.json")
    assert metrics["steps"] > 0 and not metrics.get("stopped")
    config = read(folder, "models/package/adapter/adapter_config.json")
    assert config["peft_type"] == "LORA" and "quantization" not in json.dumps(config)
    assert read(folder, "models/package/kind.json")["served_as"] == "adapter"


def test_qlora_goes_on_from_a_champion_s_adapter(workspace: Any, root: Path) -> None:
    """A night: the first validation is the adapter's as it was left, over the same base in four bits."""
    folder = workspace(launch="gpu1", method="qlora", **STEPS)
    left = run_stage("sft", folder, root)[0]["validation_loss"]
    (folder / "models/sft/adapter").rename(folder / ADAPTER)
    write_manifest(folder / layout.START)
    assert run_stage("sft", folder, root)[0]["validation_loss_before"] == pytest.approx(left, abs=1e-3)


def test_a_training_that_is_killed_on_a_gpu_goes_on_to_the_same_losses(workspace: Any, root: Path) -> None:
    folder = workspace(train=31, launch="gpu1", save_every=2, **STEPS)
    undisturbed = run_stage("sft", folder, root) and (folder / "reports/plots/sft_loss.csv").read_text()
    stage = kills.start(SFT, folder, root)
    kills.wait_for_checkpoint(SFT, folder, stage, 6)
    kills.end_of(stage, lambda: kills.kill_all(SFT, stage))
    kept = step_of(kills.last_checkpoint(SFT, folder))
    assert f"going on from step {kept} of 32" in kills.finish(kills.start(SFT, folder, root))
    losses = [
        [float(line.split(",")[2]) for line in text.splitlines()[1:]]
        for text in (undisturbed, (folder / "reports/plots/sft_loss.csv").read_text())
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
