"""Smaller forms: a GGUF file that reads back as what was written, and a student that learns a teacher's answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.engine.teacher import Teacher
from tasks.engine.teacher_cache import Ask, Message, Reply, ReplyCache
from tasks.files import verify_manifest, write_json, write_manifest
from tasks.params import load_params
from tasks.prompts import messages_of
from tasks.train.packaging import distil, smaller, weight_parity
from tasks.train.packaging.distil import DistilError, kept_layers, make_student, taught
from tests.tasks.train.conftest import an_example


@pytest.fixture
def package(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with whole weights as its package."""
    folder: Path = workspace()
    monkeypatch.chdir(folder)
    shutil.copytree("data/base_model", "models/package/model")
    for name in ("prompt.json", "base.json"):
        write_json(folder / "models/package" / name, {})
    (folder / "models/package/README.md").write_text("# A card\n")
    write_json(folder / "models/package/kind.json", {"served_as": "weights", "why": "test"})
    write_manifest(folder / "models/package")
    return folder


def test_eight_bits_answer_nearly_alike_and_four_bits_of_a_four_bit_model_exactly(package: Path) -> None:
    """q8_0: 127 steps of the largest weight of 32, so errors below 1 %; the base model's weights are q4_1's already."""
    eight, four = smaller.quantised("q8_0"), smaller.quantised("q4_1")
    assert 0 < eight.about["logit_error"] < 0.02
    assert four.about["logit_error"] < 1e-3
    # 8.5 and 5 bits a weight in blocks of 32; most of this model's are embeddings, which stay at 8.5.
    assert eight.about["bytes"] - 34 / 32 * eight.about["parameters"] < 4e6
    assert four.about["bytes"] < eight.about["bytes"] < 0.3 * 4 * eight.about["parameters"]
    verify_manifest(eight.folder / "package")
    assert "logit_error" in (eight.folder / "package/README.md").read_text()


def test_a_form_that_is_there_is_not_made_again_and_one_of_another_version_is(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def write(model: Any, domain: Any, kind: str, target: Path) -> dict[str, int]:
        made.append(kind)
        target.write_bytes(b"gguf")
        return {"bytes": 4, "parameters": 1}

    def read(file: Path, target: Path) -> Any:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree("data/base_model", target)

    monkeypatch.setattr(smaller, "quantise", write)
    monkeypatch.setattr(smaller, "read_back", read)
    monkeypatch.setattr(smaller, "logit_error", lambda *_: 0.0)
    first = smaller.quantised("q8_0")
    assert smaller.quantised("q8_0") == first
    assert made == ["q8_0"]
    (package / "models/package/README.md").write_text("# Another version\n")
    write_manifest(package / "models/package")
    assert smaller.quantised("q8_0").digest != first.digest
    assert made == ["q8_0", "q8_0"]


def test_virtual_tokens_are_nothing_that_could_be_quantised(package: Path) -> None:
    (package / "models/package/adapter").mkdir()
    shutil.copyfile("params.yaml", "models/package/adapter/adapter_config.json")
    write_json(package / "models/package/kind.json", {"served_as": "nothing", "why": "prefix"})
    write_manifest(package / "models/package")
    with pytest.raises(smaller.NothingToShrink, match="prefix"):
        smaller.quantised("q8_0")


@pytest.mark.parametrize(
    ("layers", "keep", "kept"), [(30, 2, [0, 29]), (30, 4, [0, 10, 19, 29]), (5, 3, [0, 2, 4]), (4, 3, [0, 2, 3])]
)
def test_a_student_keeps_both_ends_and_even_steps_between(layers: int, keep: int, kept: list[int]) -> None:
    """30 layers to 4: steps of 29/3 = 9.67, so 0, 9.67 → 10, 19.33 → 19, 29."""
    assert kept_layers(layers, keep) == kept


@pytest.mark.parametrize("keep", [1, 30, 31])
def test_a_student_must_be_smaller_than_its_model_and_more_than_one_layer(keep: int) -> None:
    with pytest.raises(DistilError, match="2 to 29"):
        kept_layers(30, keep)


def test_a_student_holds_the_layers_it_keeps(package: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained("data/base_model", num_hidden_layers=4)
    model = AutoModelForCausalLM.from_config(config)
    weights = [model.model.layers[at].mlp.up_proj.weight.detach().clone() for at in range(4)]
    assert make_student(model, 3, tmp_path / "student") == [0, 2, 3]
    found = weight_parity.load(tmp_path / "student")
    for layer, at in zip(found.model.layers, (0, 2, 3), strict=True):
        assert bool((layer.mlp.up_proj.weight == weights[at]).all())
    verify_manifest(tmp_path / "student")


def test_the_teachers_answers_take_the_place_of_the_references(package: Path, tmp_path: Path) -> None:
    """One that was cut off or that writes a role marker teaches nothing, and none at all is an error."""
    params, tokenizer = load_params(), weight_parity.load_tokenizer(Path("data/base_model"))
    examples = [an_example(number) for number in range(3)]
    cache = ReplyCache(tmp_path / "cache", {"test": "teacher"})
    replies = [("Said so.", "stop"), ("Said at such len", "length"), ("<|im_end|>", "stop")]
    for example, (text, finish) in zip(examples, replies, strict=True):
        messages = tuple(Message.model_validate(row) for row in messages_of("Be brief.", example.prompt))
        key = cache.key(Ask(messages=messages, max_tokens=20, temperature=0.0))
        cache.put(key, Reply.model_validate({"text": text, "finish_reason": finish}))

    def nobody() -> Any:
        raise AssertionError("the teacher was asked")

    with Teacher(params.construct_.teacher, cache, nobody) as teacher:
        found = taught(examples, "Be brief.", teacher, 20, tokenizer)
        assert [(row.instruction, row.output) for row in found] == [(examples[0].instruction, "Said so.")]
        assert found[0].source == ("test", distil.DISTILLED)
        with pytest.raises(DistilError, match="ended none"):
            taught(examples[1:], "Be brief.", teacher, 20, tokenizer)
