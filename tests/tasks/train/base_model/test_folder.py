"""A model's folder: what it is, and by which name what cannot be used is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.train.base_model.folder import INDEX, BaseModelError, examine
from tests.families import lay_family


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_family(tmp_path_factory.mktemp("model") / "tiny", "qwen2")


def setting(name: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def first_shard(folder: Path) -> Path:
    return min(folder.glob("model-*.safetensors"))


def pickled(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"...")


def cut_short(folder: Path) -> None:
    first_shard(folder).write_bytes(first_shard(folder).read_bytes()[:-10])


REFUSED: list[tuple[Callable[[Path], object], str]] = [
    (pickled, "holds its weights as pytorch_model.bin only, which can run code"),
    (lambda folder: first_shard(folder).unlink(), f"is not whole: model-00001-of-.* of {INDEX} missing"),
    (cut_short, r"model-00001-of-\d+\.safetensors is no whole safetensors file"),
    (lambda folder: (folder / INDEX).unlink(), f"neither model.safetensors nor {INDEX}"),
    (setting(INDEX, weight_map={"a": "../../elsewhere.safetensors"}), "names no safetensors files of this folder"),
    (setting("config.json", auto_map={"AutoModel": "m.M"}), r"needs code of its own \(auto_map in config.json\)"),
    (setting("tokenizer_config.json", auto_map={}), r"needs code of its own \(auto_map in tokenizer_config.json\)"),
    (setting("config.json", auto_map={}, model_type="chatglm"), "take GLM-4-9B-0414"),
    (setting("config.json", model_type="chatglm"), "model_type 'chatglm', which is no language model of transformers"),
    (setting("config.json", architectures=["Qwen2ForTokenClassification"]), "take its text model alone"),
    (setting("config.json", quantization_config={"quant_method": "gptq"}), r"is quantised \(gptq\)"),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    (shutil.rmtree, "is no folder"),
]


@pytest.mark.parametrize("change, said", REFUSED)
def test_a_folder_that_cannot_be_used_is_refused_by_name(
    change: Callable[[Path], object], said: str, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(model, folder)
    change(folder)
    with pytest.raises(BaseModelError, match=said):
        examine(folder)


def test_what_a_model_is_is_read_from_the_heads_of_its_files(model: Path) -> None:
    from transformers import AutoModelForCausalLM

    whole: Any = AutoModelForCausalLM.from_pretrained(model)
    facts = examine(model)
    assert facts.parameters == sum(p.numel() for p in whole.parameters())
    assert facts.words().startswith("Qwen2ForCausalLM, 0.1 million parameters in bfloat16, a context of 512 tokens")
