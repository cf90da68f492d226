"""Every family is taken, read alike by all sides, trained a step and merged: the table in docs/domains.md."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.files import verify_manifest
from tasks.text.prompts import PromptBook, messages_of, render
from tasks.train.base_model.folder import BaseModelError, examine
from tasks.train.base_model.stage import convert
from tasks.train.package import parity
from tasks.train.package.stage import prompt_of
from tasks.train.run.export import make_plain
from tasks.train.run.methods import parameter_counts, prepared
from tasks.train.run.shape import read_shape, trained_parameters
from tests.families import FAMILIES, GEMMA2, THINKING, lay_family
from tests.small_tokenizer import MISTRAL
from tests.training_job import a_job

LORA = {"rank": 2, "alpha": 4, "dropout": 0.0, "target_modules": "all-linear"}
LARGEST_LOGIT_DIFFERENCE = 1e-3  # as package.max_logit_difference


def a_step(model: Any, ids: list[int], answer: int) -> None:
    """One step on one example, of which only the answer is learnt."""
    labels = torch.tensor([[-100] * (len(ids) - answer) + ids[-answer:]])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model(input_ids=torch.tensor([ids]), labels=labels, use_cache=False).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_taken_asked_alike_trained_and_merged(
    name: str, root: Path, with_model: Any, tmp_path: Path
) -> None:
    family, base = FAMILIES[name], tmp_path / "base"
    origin = lay_family(tmp_path / "origin", name)
    domain = with_model(path=str(origin))
    assert convert(domain, base) == verify_manifest(base)
    facts = examine(base)
    assert (facts.dtype, facts.context, len(facts.weights) > 1) == ("bfloat16", 512, True)
    assert all(path.readlink() == origin / path.name for path in facts.weights)

    prompt = prompt_of(domain, base)
    parity.check_prompts(domain.system_text(), base, base, prompt)
    assert (prompt["special_tokens"]["eos_token"], prompt["special_tokens"]["pad_token"]) == (family.ends, family.pad)
    book = PromptBook(base)
    ids = book.ids(render(book, messages_of(domain.system_text(), "Hello.")))
    if family.adds_begin:
        assert ids.count(book.ids(family.named["bos_token"])[0]) == 1

    job = a_job(root, base, "lora", LORA)
    model = prepared(parity.load(base), job)
    assert parameter_counts(model)["trainable_parameters"] == trained_parameters(
        read_shape(base), "lora", job.method_section()
    )
    assert {
        name.rsplit(".lora_A", 1)[0].rsplit(".", 1)[1] for name, _ in model.named_parameters() if "lora_A" in name
    } == {*family.modules}
    answer = book.ids("Good day." + family.ends)
    a_step(model.train(), ids + answer, len(answer))
    model.save_pretrained(tmp_path / "adapter")
    make_plain(model, tmp_path / "adapter")
    assert sorted(json.loads((tmp_path / "adapter/adapter_config.json").read_text())["target_modules"]) == sorted(
        family.modules
    )

    plain = parity.load(base)
    before = parity.logits_of(plain, [ids])
    adapted = parity.adapted(plain, tmp_path / "adapter")
    after = parity.logits_of(adapted, [ids])
    parity.refuse_unchanged(after, before)
    parity.refuse_difference(after, parity.logits_of(parity.merge(adapted), [ids]), LARGEST_LOGIT_DIFFERENCE)


@pytest.mark.parametrize(
    "name, template, said",
    [
        ("gemma3_text", GEMMA2, "with the domain's system prompt and an earlier turn: .*System role not supported"),
        ("mistral", MISTRAL, "writes an answer of an earlier turn otherwise than it begins one"),
        ("qwen3", THINKING, "writes an answer of an earlier turn otherwise than it begins one"),
        ("llama", "{% for m in messages %}{{ m.content }} {% endfor %}", "ends an answer with no token of its own"),
    ],
)
def test_a_template_that_cannot_be_trained_is_refused_and_chatml_takes_its_place(
    name: str, template: str, said: str, with_model: Any, tmp_path: Path
) -> None:
    origin = lay_family(tmp_path / "origin", name, replace(FAMILIES[name], template=template))
    with pytest.raises(BaseModelError, match=said):
        convert(with_model(path=str(origin)), tmp_path / "base")
    assert not (tmp_path / "base").exists()
    domain = with_model(path=str(origin), chat_template="chatml")
    convert(domain, tmp_path / "base")
    base = tmp_path / "base"
    assert parity.check_prompts(domain.system_text(), base, base, prompt_of(domain, base)) == 5
    begin = "<bos>" if name == "gemma3_text" else FAMILIES[name].named.get("bos_token", "")
    assert render(PromptBook(base), messages_of("", "Hello.")).startswith(f"{begin}<|im_start|>user\nHello.")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("method", ["full", "p_tuning_v2"])
def test_every_weight_and_prefixes_of_a_family_are_counted_and_moved_by_a_step(
    method: str, name: str, root: Path, tmp_path: Path
) -> None:
    sections: dict[str, dict[str, Any]] = {
        "full": {"train_embeddings": True},
        "p_tuning_v2": {"virtual_tokens": 3, "projection": False, "hidden": 8},
    }
    folder, ids = lay_family(tmp_path, name), list(range(40, 60))
    job = a_job(root, folder, method, sections[method])
    model = prepared(parity.load(folder), job)
    counted = trained_parameters(read_shape(folder), job.settings.method, job.method_section())
    assert parameter_counts(model)["trainable_parameters"] == counted
    before = parity.logits_of(model.eval(), [ids])
    a_step(model.train(), ids, 5)
    parity.refuse_unchanged(parity.logits_of(model.eval(), [ids]), before)
