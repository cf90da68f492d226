"""Online trainings on a task of known best answers: they find them, go on after a kill, and stop by themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.train.checkpoints import is_complete, last_complete
from tasks.train.online import worker
from tests import online_toy as toy
from tests.online_jobs import online_job

BANDIT = {
    "learning_rate": 5e-3,
    "batch_size": 128,
    "save_every": 1000,
    "rollout": {"updates": 30, "answers": 32},
    "ppo": {"epochs": 2, "minibatches": 1},
}


@pytest.fixture(autouse=True)
def on_this_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(tmp_path)


def known_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_reward", lambda job, tokenizer: toy.earned)


def trained(folder: Path, settings: dict[str, Any], checkpoint: Path | None = None, seed: int = 1) -> dict[str, Any]:
    """What a run in this process leaves in `folder`."""
    job = online_job(folder, settings, seed=seed)
    worker.train(job, folder / "run", str(checkpoint) if checkpoint else None)
    result: dict[str, Any] = json.loads((folder / "run/final/result.json").read_text())
    return result


def curve(result: dict[str, Any], name: str) -> list[float]:
    return [value for _, curve, value in result["history"] if curve == name]


def test_ppo_finds_the_best_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A policy at random earns about 0.7, the best one 1.85: trying every answer says so."""
    known_reward(monkeypatch)
    result = trained(tmp_path, BANDIT)
    best = sum(toy.best_rewards()) / toy.PROMPTS
    rewards = curve(result, "reward")
    assert rewards[0] < 0.6 * best
    assert rewards[-1] > 0.9 * best
    assert result["stopped"] == ""


SHORT = {
    "method": "lora",
    "lora": {"rank": 4},
    "save_every": 4,
    "rollout": {"updates": 4, "answers": 4},
    "ppo": {"epochs": 2, "kl_horizon": 20.0},
}


def test_a_run_that_was_killed_goes_on_to_the_same_curve_and_weights(tmp_path: Path) -> None:
    """Answers, value head, price of a nat, optimiser and schedule: all of them shape the last update."""
    whole = trained(tmp_path / "whole", SHORT)
    kept = last_complete(tmp_path / "whole/run")
    assert kept is not None
    assert kept.name == "checkpoint-16"
    half = tmp_path / "whole/run/checkpoint-12"
    assert is_complete(half)
    shutil.copytree(half, tmp_path / "again/run/checkpoint-12")
    again = trained(tmp_path / "again", SHORT, tmp_path / "again/run/checkpoint-12")
    assert again == whole
    weights = [(tmp_path / name / "run/final/adapter_model.safetensors").read_bytes() for name in ("whole", "again")]
    assert weights[0] == weights[1]
    assert len(set(curve(whole, "kl_coefficient"))) == 4
    assert not any("value_head" in name for name in _tensors(tmp_path / "whole/run/final"))


def _tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_out_of_bounds_it_stops_with_the_last_good_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The best answers are more than half a nat away; what is kept is the policy of the last answers inside of that."""
    known_reward(monkeypatch)
    result = trained(tmp_path, BANDIT | {"bounds": {"max_kl": 0.5}})
    assert "max_kl" in result["stopped"]
    assert 0 < result["steps"] < 60
    assert max(curve(result, "kl")) <= 0.5
    assert 0.0 < result["held_out_kl"] < 0.75  # sixteen answers estimate it
    assert result["held_out_gain"] > 0.0


def test_a_reward_that_is_no_number_leaves_the_sft_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        worker, "load_reward", lambda job, tokenizer: lambda tokens, mask: torch.full((len(tokens),), torch.nan)
    )
    result = trained(tmp_path, SHORT)
    assert "reward is nan" in result["stopped"]
    assert "held_out_gain" not in result
    assert all(not tensor.any() for name, tensor in _tensors(tmp_path / "run/final").items() if "lora_B" in name)


@pytest.mark.parametrize("alignment", ["rloo", "grpo"])
def test_the_group_methods_learn_from_the_same_reward(
    alignment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known_reward(monkeypatch)
    monkeypatch.setattr("tasks.train.online.group_trainer.load_reward", lambda job, tokenizer: _Known())
    settings = BANDIT | {"alignment": alignment, alignment: {"beta": 0.01, "iterations": 2}}
    rewards = curve(trained(tmp_path, settings), "reward")
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.3


class _Known(torch.nn.Module):
    """The table of rewards in the shape of a reward model."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return toy.earned(tokens, mask)
