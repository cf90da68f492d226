"""Smaller forms: a GGUF file that reads back as what was written, and a student that learns a teacher's answers."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import sha256_file, verify_manifest, write_json, write_manifest
from tasks.core.params import load_params
from tasks.core.records import Turn
from tasks.corpus.teacher.teacher import Ask, Message, Reply, ReplyCache, Teacher
from tasks.text.prompts import messages_of, render
from tasks.train import smaller
from tasks.train.base_model.stage import convert
from tasks.train.package import parity
from tasks.train.run.worker import load_tokenizer
from tasks.train.smaller import SmallerError, kept_layers, make_student, modelfile, taught
from tests.tasks.train.conftest import VOCABULARY, an_example

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def lay_source(model: Path, target: Path) -> None:
    """The GGUF file that the model came from, as its packager would have written it: of 30 layers, without tensors."""
    import gguf

    content = json.loads((model / "tokenizer.json").read_text())["model"]
    writer: Any = gguf.GGUFWriter(target, "llama")
    fields: dict[str, Any] = {"languages": ["en"], "block_count": 30, "context_length": 8192, "embedding_length": 576}
    fields |= {"feed_forward_length": 1536, "head_count": 9, "head_count_kv": 3, "rope_freq_base": 100000.0}
    fields |= {"layer_norm_rms_eps": 1e-5, "rope_dimension_count": 64, "vocab_size": VOCABULARY}
    fields |= {"add_bos_token": False, "tokenizer_model": "gpt2", "tokenizer_pre": "smollm"}
    fields |= {"token_list": sorted(content["vocab"], key=content["vocab"].__getitem__)}
    fields |= {"token_types": [3] * 17 + [1] * (VOCABULARY - 17)}  # 17 special tokens come first
    fields |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    fields |= {"token_merges": [" ".join(pair) for pair in content["merges"]], "chat_template": "the packager's own"}
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.fixture
def package(workspace: Any, small: Path) -> Path:
    """A repository with whole weights as its package, over a small base model and the file that it came from."""
    folder: Path = workspace()
    shutil.rmtree("data/base_model")
    shutil.copytree(small, "data/base_model")
    about = folder / "domains/construction/domain.yaml"
    domain = yaml.safe_load(about.read_text())
    lay_source(small, about.parent / "small.gguf")
    source = {"package": "", "files": ["small.gguf"], "sha256": sha256_file(about.parent / "small.gguf")}
    about.write_text(yaml.safe_dump({**domain, "base_model": domain["base_model"] | source}))
    shutil.copytree("data/base_model", "models/package/model")
    for name in ("prompt.json", "base.json"):
        write_json(folder / "models/package" / name, {})
    (folder / "models/package/README.md").write_text("# A card\n")
    (folder / "models/package/knowledge").mkdir()
    (folder / "models/package/knowledge/passages.parquet").write_bytes(b"passages")
    write_json(folder / "models/package/kind.json", {"served_as": "weights", "why": "test"})
    write_manifest(folder / "models/package")
    return folder


def test_eight_bits_answer_nearly_alike_and_four_bits_of_a_four_bit_model_exactly(package: Path) -> None:
    """q8_0: 127 steps of the largest weight of 32, so errors below 1 %; the base model's weights are q4_1's already.

    8.5 bits a weight in blocks of 32, or 5 bits in a layer's; what is more is the header and five norms in fp32.
    """
    eight, four = smaller.quantised("q8_0"), smaller.quantised("q4_1")
    assert 0 < eight.about["logit_error"] < 0.02
    assert four.about["logit_error"] < 1e-3
    norms, embeddings = 5 * 576, VOCABULARY * 576
    layers = eight.about["parameters"] - norms - embeddings
    for form, bits in ((eight, 8.5), (four, 5.0)):
        assert 0 < form.about["bytes"] - (bits * layers + 8.5 * embeddings) / 8 - 4 * norms < 1e5
    verify_manifest(eight.folder / "package")
    assert "logit_error" in (eight.folder / "package/README.md").read_text()
    assert (eight.folder / "package/knowledge/passages.parquet").read_bytes() == b"passages"
    assert (eight.folder / "package/Modelfile").read_text().startswith("FROM ./model.gguf\nTEMPLATE")
    check_conversion(eight.folder / "package/model.gguf")


def check_conversion(file: Path) -> None:
    """As a base model, the file becomes the same bytes twice."""
    domain = load_domain("construction")
    shutil.copyfile(file, domain.folder / "again.gguf")
    about = {"files": ["again.gguf"], "sha256": sha256_file(file)}
    domain = domain.model_copy(update={"base_model": domain.base_model.model_copy(update=about)})
    assert convert(domain, Path("one")) == convert(domain, Path("two"))


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_ollama_is_told_to_write_a_conversation_as_it_was_trained(tiny_model: Path, system: str) -> None:
    """Its template is filled in once a turn, cut off at the answer that is wanted; the system prompt comes first."""
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = CHATML
    written = modelfile(tokenizer, system)
    template = written.split('TEMPLATE """')[1].split('"""')[0]

    def turn(system: str, user: str, answer: str) -> str:
        begin = re.sub(r"{{ if .System }}(.*?){{ end }}", r"\1" if system else "", template, flags=re.S)
        return begin.replace("{{ .System }}", system).replace("{{ .Prompt }}", user).replace("{{ .Response }}", answer)

    cut = turn("", "And then?", "CUT").split("CUT")[0]
    messages = messages_of(system, "And then?", (Turn(user="How?", assistant="So."),))
    assert turn(system, "How?", "So.") + cut == render(tokenizer, messages)
    assert f'SYSTEM """{system}"""' in written or not system
    assert 'PARAMETER stop "<|im_end|>"' in written


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
    with pytest.raises(SmallerError, match="prefix"):
        smaller.quantised("q8_0")


@pytest.mark.parametrize(
    ("layers", "keep", "kept"), [(30, 2, [0, 29]), (30, 4, [0, 10, 19, 29]), (5, 3, [0, 2, 4]), (4, 3, [0, 2, 3])]
)
def test_a_student_keeps_both_ends_and_even_steps_between(layers: int, keep: int, kept: list[int]) -> None:
    """30 layers to 4: steps of 29/3 = 9.67, so 0, 9.67 → 10, 19.33 → 19, 29."""
    assert kept_layers(layers, keep) == kept
    for wrong in (1, layers):
        with pytest.raises(SmallerError, match=f"2 to {layers - 1}"):
            kept_layers(layers, wrong)


def test_a_student_holds_the_layers_it_keeps(package: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained("data/base_model", num_hidden_layers=4)
    model = AutoModelForCausalLM.from_config(config)
    weights = [model.model.layers[at].mlp.up_proj.weight.detach().clone() for at in range(4)]
    assert make_student(model, 3, tmp_path / "student") == [0, 2, 3]
    found = parity.load(tmp_path / "student")
    for layer, at in zip(found.model.layers, (0, 2, 3), strict=True):
        assert bool((layer.mlp.up_proj.weight == weights[at]).all())
    verify_manifest(tmp_path / "student")


def test_the_teachers_answers_take_the_place_of_the_references(package: Path, tmp_path: Path) -> None:
    """One that was cut off or that writes a role marker teaches nothing, and none at all is an error."""
    params, tokenizer = load_params(), load_tokenizer(Path("data/base_model"))
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
        assert found[0].source == ("test", smaller.DISTILLED)
        with pytest.raises(SmallerError, match="ended none"):
            taught(examples[1:], "Be brief.", teacher, 20, tokenizer)


def test_a_student_is_trained_alike_before_and_after_a_night(workspace: Any) -> None:
    """A night goes on from the champion at a share of sft's rate; a student begins from itself. 11 rows, 2 steps an
    epoch: 20 steps take 10 epochs."""
    workspace(learning_rate=2e-4, min_steps=20, batch_size=4)
    data = {name: layout.MIX / f"{name}.jsonl" for name in ("train", "validation")}

    def described() -> Any:
        student = (Path("student"), "0" * 64)
        return smaller.describe_student(load_params(), load_domain("construction"), *student, data)

    afresh = described()
    shutil.copytree(layout.BASE_MODEL, layout.START / "model")
    write_manifest(layout.START)
    assert described() == afresh
    assert (afresh.settings.learning_rate, afresh.settings.epochs, afresh.keep_best) == (2e-4, 10, True)
