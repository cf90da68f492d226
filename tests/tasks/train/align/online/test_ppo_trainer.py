"""Online trainings on a task of known best answers: they find them, go on after a kill, and stop by themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tasks.train.align.online import worker
from tasks.train.run.checkpoints import is_complete
from tasks.train.run.methods import MethodUnavailable
from tests import online_toy as toy
from tests.online_jobs import online_job

BANDIT = {
    "learning_rate": 5e-3,
    "batch_size": 128,
    "save_every": 1000,
    "rollout": {"updates": 30, "answers": 32},
    "ppo": {"epochs": 2, "minibatches": 1},
}

# More passes over the same answers, and a value head that counts for more: enough to leave second best answers.
FINDS = {
    "learning_rate": 3e-3,
    "max_grad_norm": 1000.0,
    "rollout": {"updates": 40, "answers": 32},
    "ppo": {"epochs": 8, "minibatches": 1, "value_coefficient": 0.5, "kl_coefficient": 0.02, "kl_horizon": 1e12},
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


def untrained(folder: Path) -> bool:
    """Whether a LoRA is as it begins."""
    adapter = load_file(folder / "adapter_model.safetensors")
    return all(not tensor.any() for name, tensor in adapter.items() if "lora_B" in name)


def curve(result: dict[str, Any], name: str) -> list[float]:
    return [value for _, curve, value in result["history"] if curve == name]


@pytest.mark.slow
def test_ppo_finds_the_best_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A policy at random earns about 0.7, the best one 1.85: trying every answer says so."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    known_reward(monkeypatch)
    result = trained(tmp_path, BANDIT | FINDS)
    best = toy.best_rewards()
    rewards = curve(result, "reward")
    assert rewards[0] < 0.4 * sum(best) / toy.PROMPTS
    assert rewards[-1] > 0.98 * sum(best) / toy.PROMPTS
    greedy = GenerationConfig(max_new_tokens=toy.ANSWER_TOKENS, pad_token_id=toy.PAD, eos_token_id=toy.END)
    asked = torch.tensor(toy.prompts())
    policy: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "run/final")
    tokens = policy.generate(input_ids=asked, attention_mask=torch.ones_like(asked), generation_config=greedy)
    earned = toy.earned(tokens, (tokens != toy.PAD).long()).tolist()
    # The second best answer to one of the prompts earns 0.999 of the best.
    assert min(own / most for own, most in zip(earned, best, strict=True)) > 0.995
    assert result["stopped"] == ""
    assert curve(result, "explained_variance")[0] == 0.0  # of a value head that begins at zero


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
    half = tmp_path / "whole/run/checkpoint-12"
    assert is_complete(half)
    shutil.copytree(half, tmp_path / "again/run/checkpoint-12")
    again = trained(tmp_path / "again", SHORT, tmp_path / "again/run/checkpoint-12")
    assert again == whole
    weights = [(tmp_path / name / "run/final/adapter_model.safetensors").read_bytes() for name in ("whole", "again")]
    assert weights[0] == weights[1]
    assert len(set(curve(whole, "kl_coefficient"))) == 4
    assert not any("value_head" in name for name in load_file(tmp_path / "whole/run/final/adapter_model.safetensors"))


def test_out_of_bounds_it_stops_with_the_last_good_policy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The best answers are more than half a nat away; what is kept is the policy of the last answers inside of that."""
    from tasks.train.align.online.ppo_trainer import PpoTrainer

    known_reward(monkeypatch)
    answered: list[dict[str, torch.Tensor]] = []  # copies of the policies that answer while they train
    begin = PpoTrainer._begin

    def remembering(trainer: PpoTrainer, update: int) -> None:
        answered.append(trainer.sound())
        begin(trainer, update)

    monkeypatch.setattr(PpoTrainer, "_begin", remembering)
    result = trained(tmp_path, BANDIT | {"bounds": {"max_kl": 0.5}})
    assert "max_kl" in result["stopped"]
    drifts = curve(result, "kl")
    assert 1 < len(drifts) == len(answered) - 1 < 30  # the last policy's answers were outside
    final = load_file(tmp_path / "run/final/model.safetensors")
    assert all(torch.equal(final[name], tensor) for name, tensor in answered[-2].items())
    assert not all(torch.equal(final[name], tensor) for name, tensor in answered[-1].items())
    assert result["held_out_gain"] > 0.0


@pytest.mark.parametrize("alignment", ["ppo", "rloo", "grpo"])
def test_a_reward_that_is_no_number_leaves_the_sft_policy(
    alignment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        worker, "load_reward", lambda job, tokenizer: lambda tokens, mask: torch.full((len(tokens),), torch.nan)
    )
    result = trained(tmp_path, SHORT | {"alignment": alignment})
    assert "reward is nan" in result["stopped"]
    assert "held_out_gain" not in result
    assert untrained(tmp_path / "run/final")


@pytest.mark.parametrize("alignment", ["ppo", "rloo", "grpo"])
def test_the_policy_of_the_last_update_is_judged_too(
    alignment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One update that goes too far, and none after it whose answers would show that: the SFT policy is kept."""
    known_reward(monkeypatch)
    far = {"method": "full", "learning_rate": 0.5, "bounds": {"max_kl": 0.5}}
    once = {"rollout": {"updates": 1, "answers": 8}, "ppo": {"epochs": 1, "minibatches": 1}}
    result = trained(tmp_path, SHORT | far | once | {"alignment": alignment})
    assert len(curve(result, "reward")) == 1
    assert "max_kl" in result["stopped"]
    final, sft = (load_file(tmp_path / name / "model.safetensors") for name in ("run/final", "model"))
    assert final.keys() == sft.keys()
    assert all(torch.equal(tensor, sft[name]) for name, tensor in final.items())
    assert (result["held_out_kl"], result["held_out_gain"]) == (0.0, 0.0)


@pytest.mark.parametrize("alignment", ["ppo", "grpo"])
def test_a_policy_whose_answers_have_no_probability_is_not_kept(
    alignment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The last step leaves weights so large that logits overflow."""
    known_reward(monkeypatch)
    once = {"learning_rate": 0.9, "max_grad_norm": 1e38, "weight_decay": 1e38, "rollout": {"updates": 1, "answers": 8}}
    result = trained(tmp_path, SHORT | once | {"alignment": alignment})
    assert "is nan" in result["stopped"]
    assert untrained(tmp_path / "run/final")


@pytest.mark.parametrize("alignment", ["ppo", "rloo"])
def test_a_method_that_needs_whole_weights_is_refused_under_zero_3_before_anything_is_loaded(
    alignment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The trainer's arguments tell transformers of the partition, as they do here, and nothing else does."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    known_reward(monkeypatch)
    told = []

    def arguments(*_: Any, **__: Any) -> None:
        told.append(HfDeepSpeedConfig({"zero_optimization": {"stage": 3}}))

    monkeypatch.setattr("tasks.train.align.online.ppo_trainer.TrainingArguments", arguments)
    monkeypatch.setattr("tasks.train.align.online.group_trainer.group_arguments", arguments)
    monkeypatch.setattr("tasks.train.align.online.policy.load_model", lambda job: pytest.fail("it was loaded"))
    with pytest.raises(MethodUnavailable, match="ZeRO-3"):
        trained(tmp_path, {"alignment": alignment, "method": "osf"})


@pytest.mark.parametrize("alignment", ["rloo", "grpo"])
def test_the_group_methods_learn_from_the_same_reward(
    alignment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known_reward(monkeypatch)
    settings = BANDIT | {"alignment": alignment, alignment: {"beta": 0.01, "iterations": 2}}
    rewards = curve(trained(tmp_path, settings), "reward")
    assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.3
