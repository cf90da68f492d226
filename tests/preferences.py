"""A repository to align in: what the stages before reward and align would leave, with a handful of preferences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.core.files import write_json, write_manifest
from tasks.core.records import Message, Preference, make_preference, write_jsonl
from tests.training import lay_training

MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def some_preferences(first: int, count: int) -> list[Preference]:
    """Two pairs a prompt: a good answer over a bad one, and over one of another length."""
    found = []
    for number in range(first, first + count):
        prompt = (Message(role="user", content=f"What is rule {number}?"),)
        good = f"Rule {number} says: build well."
        source = (f"example/{number}",)
        found.append(make_preference(prompt, good, "No idea.", ("reference", "base_model", *source)))
        found.append(
            make_preference(
                prompt, good, "Bananas " + "and bananas " * (number % 5), ("reference", "wrong_category", *source)
            )
        )
    return found


def lay_alignment(
    folder: Path,
    root: Path,
    model: Path,
    settings: Mapping[str, Mapping[str, Any]],
    prompts: int = 6,
    held_out: int = 3,
    adapter: bool = False,
) -> Path:
    """Lay it out in `folder`; `settings` overrides sections of params.yaml. With `adapter`, SFT has left a LoRA."""
    lay_training(folder, root, model, [], [], {}, settings)
    write_jsonl(folder / "data/pairs/train.jsonl", some_preferences(0, prompts))
    write_jsonl(folder / "data/pairs/validation.jsonl", some_preferences(100, held_out))
    if adapter:
        write_adapter(folder / "models/sft/adapter", model)
    else:
        write_json(folder / "models/sft/none/why.json", {"why": "test"})
        write_manifest(folder / "models/sft/none")
    return folder


def write_adapter(
    target: Path, model: Path, scale: float = 0.02, seed: int = 7, modules: Sequence[str] = MODULES
) -> Path:
    """A LoRA of the default settings whose weights are the noise of `seed`, so that it does change the model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=16, lora_alpha=32, target_modules=list(modules), task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * scale
    tuned.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)
    write_manifest(target)
    return target
