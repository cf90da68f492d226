"""The peer of bench_ppo.py: TRL 1.12.0's PPO, the last there was, on the toy task. Runs in an environment of its own.

    .flywheel/bench-trl/bin/python -m tests.bench.ppo_peer SETTINGS.json FOLDER

prints the mean reward of each seed's final policy, a line each.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from tests import online_toy as toy


class Earned(torch.nn.Module):
    """The table of rewards in the shape of TRL's reward models: a backbone whose one hidden unit is the reward."""

    base_model_prefix = "backbone"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Walk()
        self.score = torch.nn.Identity()


class _Walk(torch.nn.Module):
    def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        steps = toy.table()[input_ids[:, :-1], input_ids[:, 1:]] * attention_mask[:, 1:]
        so_far = torch.nn.functional.pad(steps.cumsum(dim=1), (1, 0))
        return SimpleNamespace(hidden_states=[so_far[..., None]])


def final_reward(settings: dict[str, Any], model_folder: Path, seed: int) -> float:
    """Train once; the mean reward of many answers of the final policy."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    def policy() -> Any:
        return AutoModelForCausalLM.from_pretrained(model_folder)

    value = AutoModelForSequenceClassification.from_pretrained(model_folder, num_labels=1)
    torch.nn.init.zeros_(value.score.weight)
    answers = settings["prompts"] * settings["answers"]
    config = PPOConfig(
        output_dir=str(model_folder.parent / "peer"),
        seed=seed,
        per_device_train_batch_size=answers,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=settings["epochs"],
        total_episodes=settings["updates"] * answers,
        local_rollout_forward_batch_size=answers,
        num_sample_generations=0,
        response_length=toy.ANSWER_TOKENS,
        stop_token="eos",  # noqa: S106 - not a password
        temperature=1.0,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=0,
        kl_coef=settings["kl_coefficient"],
        cliprange=settings["clip"],
        cliprange_value=settings["value_clip"],
        vf_coef=settings["value_coefficient"],
        gamma=settings["gamma"],
        lam=settings["gae_lambda"],
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    rows = [{"input_ids": row} for row in toy.prompts() for _ in range(settings["answers"])]
    trainer = PPOTrainer(
        args=config,
        processing_class=toy.tokenizer(),
        model=policy(),
        ref_model=policy(),
        reward_model=Earned(),
        value_model=value,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    return toy.mean_reward(trainer.accelerator.unwrap_model(trainer.model).policy, seed)


def main() -> None:
    """All seeds, one after the other."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    folder = toy.save_model(Path(sys.argv[2]) / "model")
    for seed in settings["seeds"]:
        print("reward", final_reward(settings, folder, seed), flush=True)


if __name__ == "__main__":
    main()
