"""A repository to train in: settings, model and examples as the stages before sft would leave them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.core import layout
from tasks.core.files import write_json, write_manifest
from tasks.core.records import Example, read_own_jsonl, write_jsonl
from tasks.train.tuning.batches import encode_rows
from tests.checkout import update


def lay_training(
    folder: Path,
    root: Path,
    model: Path,
    train: Iterable[Example],
    validation: Iterable[Example],
    sft: Mapping[str, Any],
    sections: Mapping[str, Any] | None = None,
) -> Path:
    """Lay it out in `folder`, with other settings in the section sft (`lora`: in methods) and in others; returns it."""
    for name in ("infra/accelerate", "infra/deepspeed", "domains/construction"):
        shutil.copytree(root / name, folder / name)
    (folder / ".flywheel").mkdir()
    (folder / ".flywheel/packages").symlink_to(root / ".flywheel/packages")
    link_weights(model, folder / "data/base_model")
    settings = yaml.safe_load((root / "params.yaml").read_text())
    settings["methods"]["lora"].update(sft.get("lora", {}))
    settings["sft"].update({"min_steps": 0} | {key: value for key, value in sft.items() if key != "lora"})
    update(settings, sections or {})
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    write_json(folder / "data/start/start.json", {"digest": None})
    write_manifest(folder / "data/start")
    write_json(folder / "models/pretrain/none/why.json", {"why": "test"})
    write_manifest(folder / "models/pretrain/none")
    write_jsonl(folder / "data/mix/train.jsonl", train)
    write_jsonl(folder / "data/mix/validation.jsonl", validation)
    return folder


def link_weights(source: Path, target: Path) -> Path:
    """A copy of a folder in which the weights, a hundred megabytes, are links: not to be written into."""

    def take(path: str, copy: str) -> None:
        (os.link if path.endswith(".safetensors") else shutil.copy2)(path, copy)

    return Path(shutil.copytree(source, target, symlinks=True, copy_function=take))


def two_layers(model: Path, target: Path) -> None:
    """A base model cut down to its first two layers, with tokenizer and manifest: seconds, not minutes."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(model, target, ignore=shutil.ignore_patterns("MANIFEST.json", "model.safetensors"))
    AutoModelForCausalLM.from_pretrained(model, num_hidden_layers=2).save_pretrained(target)
    write_manifest(target)


def run_stage(stage: str, folder: Path, root: Path) -> tuple[dict[str, Any], str]:
    """Run a training stage in a workspace to its good end; returns its metrics, and what it and its libraries said."""
    done = subprocess.run(
        [sys.executable, "-m", f"tasks.train.{stage}.stage"],
        cwd=folder,
        env={**layout.child_environment(), "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = f"{done.stdout}{done.stderr}"
    assert done.returncode == 0, said
    metrics = folder / layout.DETAILS / f"{stage}.json"
    return json.loads(metrics.read_text()) if metrics.is_file() else {}, said


def answer_losses(folder: Path, split: str, adapter: Path | None = None) -> list[tuple[int, float, int]]:
    """For each example: its length in tokens, the sum of its answer's negative log-likelihood, its answer's tokens.

    By the base model alone or under an adapter, one example at a time, in fp32; of our code only the encoding.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder / layout.BASE_MODEL, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    tokenizer = AutoTokenizer.from_pretrained(folder / layout.BASE_MODEL)
    examples = read_own_jsonl(folder / layout.MIX / f"{split}.jsonl", Example)
    system = (folder / "domains/construction/prompts/system.txt").read_text().strip()
    losses = []
    for row in encode_rows(tokenizer, system, examples, 512):
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
        learnt = int((labels != -100).sum())
        with torch.no_grad():
            losses.append((ids.shape[1], model(input_ids=ids, labels=labels).loss.item() * learnt, learnt))
    return losses
