"""Package: what is refused, and what a server finds in the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.files import ManifestError, sha256_bytes, verify_manifest, write_json, write_manifest
from tasks.params import load_params
from tasks.train import package
from tasks.train.sft import clean_config


def set_lora_b(model: Any, value: float) -> None:
    """LoRA's B is zero before training: the adapter changes nothing."""
    import torch

    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=value)


@pytest.fixture
def packed(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A repository with an adapter whose B has the given spread, ready for the stage."""

    def build(spread: float = 0.05, poison: float | None = None) -> Path:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        folder: Path = workspace()
        monkeypatch.chdir(folder)
        base = AutoModelForCausalLM.from_pretrained("data/base_model")
        model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
        if spread:
            set_lora_b(model, spread)
        if poison is not None:
            next(p for name, p in model.named_parameters() if "lora_A" in name).data[0, 0] = poison
        target = folder / "models/sft/adapter"
        model.save_pretrained(target)
        (target / "README.md").unlink()
        config = json.loads((target / "adapter_config.json").read_text())
        write_json(target / "adapter_config.json", clean_config(config, "SmolLM2-135M-Instruct"))
        write_manifest(target)
        counts = {"examples": 11, "tokens": 1234, "answer_tokens": 567, "steps": 4}
        write_json(
            folder / "reports/metrics/sft.json", {**counts, "trainable_parameters": 10, "parameters": 100, "seconds": 0}
        )
        return folder

    return build


def test_a_package_holds_adapter_prompt_base_card_and_manifest(packed: Any) -> None:
    folder = packed() / "models/package"
    assert "adapter and merged weights agree" in package.stage()
    listed = json.loads((folder / "MANIFEST.json").read_text())["files"]
    names = [
        "README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "base.json",
        "prompt.json",
    ]
    assert sorted(listed) == names
    verify_manifest(folder)

    prompt = json.loads((folder / "prompt.json").read_text())
    assert prompt["system"] == Path("domains/construction/prompts/system.txt").read_text().strip()
    assert prompt["chat_template_sha256"] == sha256_bytes(Path("data/base_model/chat_template.jinja").read_bytes())
    assert prompt["special_tokens"]["pad_token"] == "<|endoftext|>"  # noqa: S105 - no password
    base = json.loads((folder / "base.json").read_text())
    assert base["digest"] == verify_manifest(Path("data/base_model"))
    assert (base["name"], base["licence"]) == ("SmolLM2-135M-Instruct", "Apache-2.0")

    card = (folder / "README.md").read_text()
    for text in (
        "Zaragoza AB, CC BY 4.0",
        "BSD 3-Clause",
        "HarmBench",
        "11 examples; 1,234 tokens",
        "apache-2.0",
        "prompt.json",
    ):
        assert text in card


def test_packing_twice_gives_the_same_digest(packed: Any) -> None:
    folder = packed() / "models/package"
    package.stage()
    first = verify_manifest(folder)
    package.stage()
    assert verify_manifest(folder) == first


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(packed: Any, value: float) -> None:
    folder = packed(poison=value)
    with pytest.raises(package.PackageError, match="1 tensors hold NaN or infinities"):
        package.stage()
    assert not (folder / "models/package").exists()


def test_an_adapter_that_was_not_trained_is_refused(packed: Any) -> None:
    packed(spread=0.0)
    with pytest.raises(package.PackageError, match="changes no logit"):
        package.stage()


def test_merged_weights_that_answer_differently_are_refused(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packed()
    monkeypatch.setattr(package, "logit_difference", lambda *_: 0.5)
    limit = load_params().package.max_logit_difference
    with pytest.raises(package.PackageError, match=f"differ by 5.00e-01 in a logit; .*{limit}"):
        package.stage()


def test_a_difference_that_is_no_number_is_refused(packed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    packed()
    monkeypatch.setattr(package, "logit_difference", lambda *_: float("nan"))
    with pytest.raises(package.PackageError, match="differ by nan"):
        package.stage()


def test_an_adapter_that_changed_since_training_is_refused(packed: Any) -> None:
    config = packed() / "models/sft/adapter/adapter_config.json"
    config.write_text(config.read_text().replace('"r": 2', '"r": 4'))
    with pytest.raises(ManifestError, match=r"changed: adapter_config\.json"):
        package.stage()


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(package.PackageError, match="is not safetensors"):
        package.refuse_broken_weights(tmp_path / "adapter_model.safetensors")
