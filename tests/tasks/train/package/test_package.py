"""Package: what is refused, what is compared, and what a server finds in the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.files import ManifestError, sha256_bytes, sha256_file, verify_manifest, write_json, write_manifest
from tasks.core.package import read_package
from tasks.core.params import load_params
from tasks.text.parity import PromptsDiffer
from tasks.train.package import parity
from tasks.train.package import stage as package
from tasks.train.package.parity import WeightsRefused, check_prompts
from tasks.train.run.handover import TrainedError, clean_config, write_nothing
from tests.checkout import change
from tests.laid_index import entry, lay_index

PLACES = ["q_proj", "down_proj"]


def peft_config(method: str) -> Any:
    """One adapter of each kind, small; those with factors or virtual tokens begin at random."""
    import peft

    task: Any = {"task_type": "CAUSAL_LM"}
    if method in ("lora", "dora"):
        return peft.LoraConfig(r=2, target_modules=PLACES, use_dora=method == "dora", **task)
    if method == "ia3":
        places = ["k_proj", "v_proj", "down_proj"]
        return peft.IA3Config(target_modules=places, feedforward_modules=["down_proj"], **task)
    return peft.PrefixTuningConfig(num_virtual_tokens=3, **task)


def train(model: Any, spread: float) -> None:
    """What training would have done: LoRA's B is zero before it, and IA3's factors one."""
    import torch

    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=spread)
        elif "ia3_l" in name:
            parameter.data.add_(torch.randn_like(parameter) * spread)


def lay_adapter(target: Path, base: Path, method: str, spread: float, poison: float | None = None) -> None:
    """An adapter over `base` as a training stage leaves it."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), peft_config(method))
    if spread:
        train(model, spread)
    if poison is not None:
        next(p for name, p in model.named_parameters() if "lora_A" in name).data[0, 0] = poison
    model.save_pretrained(target)
    (target / "README.md").unlink(missing_ok=True)
    config = json.loads((target / "adapter_config.json").read_text())
    write_json(target / "adapter_config.json", clean_config(config, "SmolLM2-135M-Instruct"))
    write_manifest(target)


def lay_model(target: Path, base: Path, spread: float) -> None:
    """Whole weights as a training stage leaves them, tokenizer and all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base)
    weight = model.model.layers[0].mlp.down_proj.weight
    weight.data.add_(torch.randn_like(weight) * spread)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(base).save_pretrained(target)
    write_manifest(target)


def lay_knowledge() -> None:
    """An index of one passage as its stage leaves it, with an embedder of one file."""
    lay_index(layout.INDEX, [entry(1, "How high is a fence?", "Not above 1.8 metres.")])
    write_json(layout.INDEX / "embedder/0_part/config.json", {"width": 384})
    (layout.INDEX / "refused.parquet").write_bytes(b"what was left out, and why")
    write_manifest(layout.INDEX)


@pytest.fixture
def packed(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A repository with an index and with what SFT left, ready for the stage. `spread`: how far training moved it."""

    def build(spread: float = 0.05, poison: float | None = None, method: str = "lora", over: str = "") -> Path:
        folder: Path = workspace()
        monkeypatch.chdir(folder)
        base = Path("data/base_model")
        if over == "pretrained":
            shutil.rmtree(folder / "models/pretrain/none")
            base = Path("models/pretrain/model")
            lay_model(base, Path("data/base_model"), 0.05)
        if method == "full":
            lay_model(Path("models/sft/model"), base, spread)
        elif method == "none":
            write_nothing(Path("models/sft"), "test")
        else:
            lay_adapter(Path("models/sft/adapter"), base, method, spread, poison)
        write_nothing(Path("models/align"), "test")
        lay_knowledge()
        counts = {"examples": 11, "tokens": 1234, "answer_tokens": 567, "steps": 4}
        write_json(Path("reports/details/sft.json"), {**counts, "trainable_parameters": 10, "parameters": 100})
        return folder

    return build


def test_a_package_holds_adapter_knowledge_prompt_base_card_and_manifest(packed: Any) -> None:
    folder = packed() / "models/package"
    assert "adapter and merged weights agree" in package.stage()
    listed = json.loads((folder / "MANIFEST.json").read_text())["files"]
    adapter = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    index = ["embedder/0_part/config.json", "passages.parquet", "retrieval.json"]
    knowledge = [f"knowledge/{name}" for name in index]
    assert sorted(listed) == ["README.md", *adapter, "base.json", "kind.json", *knowledge, "prompt.json"]
    assert [listed[f"knowledge/{name}"] for name in index] == [sha256_file(layout.INDEX / name) for name in index]
    digest = verify_manifest(folder)
    found = read_package(folder)
    assert (found.kind.served_as, found.knowledge) == ("adapter", folder / "knowledge")

    prompt = json.loads((folder / "prompt.json").read_text())
    assert prompt["system"] == Path("domains/construction/prompts/system.txt").read_text().strip()
    assert prompt["chat_template_sha256"] == sha256_bytes(Path("data/base_model/chat_template.jinja").read_bytes())
    assert prompt["special_tokens"]["pad_token"] == "<|endoftext|>"  # noqa: S105 - no password
    base = json.loads((folder / "base.json").read_text())
    assert base["digest"] == verify_manifest(Path("data/base_model"))
    assert (base["name"], base["licence"]) == ("SmolLM2-135M-Instruct", "Apache-2.0")

    card = (folder / "README.md").read_text()
    told = ("Zaragoza AB, CC BY 4.0", "BSD 3-Clause", "HarmBench", "11 examples; 1,234 tokens", "apache-2.0")
    assert [text for text in (*told, "prompt.json", "Method lora (rank 16, alpha 32") if text not in card] == []
    package.stage()
    assert verify_manifest(folder) == digest


@pytest.mark.parametrize(
    ("method", "over", "parts", "served_as"),
    [
        ("full", "", ["model"], "weights"),
        ("dora", "", ["model"], "weights"),
        ("ia3", "", ["model"], "weights"),
        ("lora", "pretrained", ["model"], "weights"),
        ("p_tuning_v2", "pretrained", ["adapter", "model"], "nothing"),
    ],
)
def test_what_no_adapter_loader_takes_becomes_weights_or_is_marked_as_served_by_nothing(
    packed: Any, method: str, over: str, parts: list[str], served_as: str
) -> None:
    """The model in the package answers as what training left: to 1e-3 of a logit, with the base's own tokenizer."""
    folder = packed(method=method, over=over) / "models/package"
    package.stage()
    found = read_package(folder)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted([*parts, "knowledge"])
    assert (found.kind.served_as, found.servable) == (served_as, served_as != "nothing")
    if found.model and not found.adapter:
        verify_manifest(found.model)
        assert (found.model / "tokenizer.json").read_bytes() == Path("data/base_model/tokenizer.json").read_bytes()
        left = [path for path in (Path("models/sft/model"), Path("models/pretrain/model")) if path.is_dir()]
        trained = parity.load(left[0] if left else Path("data/base_model"))
        if Path("models/sft/adapter").is_dir():
            trained = parity.adapted(trained, Path("models/sft/adapter"))
        prompts = [[1, 4093, 198, 2], [28, 500]]
        one, other = (parity.logits_of(model, prompts) for model in (trained, parity.load(found.model)))
        assert parity.largest_difference(one, other) < 1e-3


@pytest.mark.parametrize("method", ["full", "lora"])
def test_weights_that_are_not_copied_as_they_are_stop_the_package(
    packed: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A disk or a file system that loses one bit of them, without an error and at the same size."""
    folder = packed(method=method)
    copyfile = shutil.copyfile

    def lossy(source: Path, target: Path) -> None:
        copyfile(source, target)
        if target.suffix == ".safetensors":
            with target.open("r+b") as file:
                file.seek(-1, 2)
                last = file.read(1)[0]
                file.seek(-1, 2)
                file.write(bytes([last ^ 1]))

    monkeypatch.setattr(package.shutil, "copyfile", lossy)
    with pytest.raises(package.PackageError, match=r"model\.safetensors is not what .*model\.safetensors is"):
        package.stage()
    assert not (folder / "models/package").exists()


def test_without_retrieval_a_package_has_no_knowledge_and_asks_for_none(packed: Any) -> None:
    folder = packed()
    change(folder, {"retrieval": {"enabled": False}})
    shutil.rmtree(layout.INDEX)
    package.stage()
    assert read_package(folder / "models/package").knowledge is None


def swap_config() -> None:
    config = Path("models/sft/adapter/adapter_config.json")
    config.write_text(config.read_text().replace('"r": 2', '"r": 4'))


def pickled() -> None:
    Path("models/sft/adapter/adapter_model.safetensors").write_bytes(b"\x80\x04pickle")
    write_manifest(Path("models/sft/adapter"))


def half_an_index() -> None:
    (layout.INDEX / "MANIFEST.json").unlink()


def swap_threshold() -> None:
    settings = layout.INDEX / "retrieval.json"
    write_json(settings, json.loads(settings.read_text()) | {"threshold": 0.9})


@pytest.mark.parametrize(
    ("left", "then", "refusal", "cause"),
    [
        ({"method": "none"}, lambda: None, package.PackageError, "every training stage is switched off"),
        ({}, lambda: write_json(Path("models/sft/model/config.json"), {}), TrainedError, "adapter and model"),
        ({}, swap_config, ManifestError, r"changed: adapter_config\.json"),
        ({}, pickled, WeightsRefused, "is not safetensors"),
        ({}, half_an_index, ManifestError, r"data/index/MANIFEST\.json is missing"),
        ({}, swap_threshold, ManifestError, r"data/index .*changed: retrieval\.json"),
        ({"poison": float("nan")}, lambda: None, WeightsRefused, "1 tensors hold NaN or infinities"),
        ({"poison": float("inf")}, lambda: None, WeightsRefused, "1 tensors hold NaN or infinities"),
        ({"spread": 0.0}, lambda: None, WeightsRefused, "change no logit"),
    ],
)
def test_what_must_not_be_judged_or_served_is_not_packaged(
    packed: Any, left: dict[str, Any], then: Callable[[], None], refusal: type[Exception], cause: str
) -> None:
    folder = packed(**left)
    then()
    with pytest.raises(refusal, match=cause):
        package.stage()
    assert not (folder / "models/package").exists()


def test_whole_weights_keep_the_precision_they_were_trained_in(packed: Any) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    packed(method="full")
    path = Path("models/sft/model/model.safetensors")
    save_file({name: value.bfloat16() for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    write_manifest(path.parent)
    assert "bit by bit" in package.stage()
    written = load_file("models/package/model/model.safetensors")
    assert {value.dtype for value in written.values()} == {torch.bfloat16}


@pytest.mark.parametrize(("difference", "said"), [(0.5, "5.00e-01"), (float("nan"), "nan")])
def test_merged_weights_that_answer_differently_are_refused(
    packed: Any, monkeypatch: pytest.MonkeyPatch, difference: float, said: str
) -> None:
    packed()
    monkeypatch.setattr(parity, "largest_difference", lambda *_: difference)
    limit = load_params().package.max_logit_difference
    with pytest.raises(WeightsRefused, match=f"differ by {said} in a logit; .*{limit}"):
        package.stage()


SYSTEM = "You are a test."


@pytest.fixture
def served(tiny_model: Path, tmp_path: Path) -> Path:
    """The tokenizer's files alone, to be changed."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        shutil.copyfile(tiny_model / name, tmp_path / name)
    return tmp_path


def packaged(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = {name: settings.get(name) for name in parity.NAMED}
    template = (folder / "chat_template.jinja").read_text()
    return {"system": SYSTEM, "chat_template": template, "special_tokens": tokens}


def test_equal_files_read_every_conversation_alike_and_another_package_is_refused(
    tiny_model: Path, served: Path
) -> None:
    whole = packaged(tiny_model)
    assert check_prompts(SYSTEM, tiny_model, served, whole) == len(parity.CONVERSATIONS) == 5
    other = whole["chat_template"].replace("assistant\n", "assistant \n")
    with pytest.raises(PromptsDiffer, match="training and the engine differ in prompt"):
        check_prompts(SYSTEM, tiny_model, tiny_model, whole | {"chat_template": other})
    with pytest.raises(PromptsDiffer, match="system prompt"):
        check_prompts(SYSTEM, tiny_model, tiny_model, whole | {"system": "Another."})
    # In a history the end-of-turn token would stand behind a space, which no trained answer ends with.
    (served / "chat_template.jinja").write_text(whole["chat_template"].replace("'<|im_end|>'", "' <|im_end|>'"))
    with pytest.raises(PromptsDiffer, match="an answer of an earlier turn"):
        check_prompts(SYSTEM, served, served, packaged(served))


@pytest.mark.parametrize(
    ("name", "old", "new", "cause"),
    [
        ("chat_template.jinja", "assistant\n", "assistant \n", "training and the gateway differ in prompt"),
        ("tokenizer_config.json", '"pad_token": "<|endoftext|>"', '"pad_token": "<|im_end|>"', "pad_token is"),
        ("tokenizer.json", "", "", "differ in prompt tokens"),
    ],
)
def test_a_served_folder_that_reads_otherwise_is_refused(
    tiny_model: Path, served: Path, name: str, old: str, new: str, cause: str
) -> None:
    """Also where a merge less gives other tokens of the same vocabulary."""
    text = (served / name).read_text()
    changed = text.replace(old, new)
    if not old:
        content = json.loads(text)
        content["model"]["merges"] = content["model"]["merges"][1:]
        changed = json.dumps(content)
    (served / name).write_text(changed)
    with pytest.raises(PromptsDiffer, match=cause):
        check_prompts(SYSTEM, tiny_model, served, packaged(tiny_model))
