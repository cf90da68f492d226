"""Prompts are the same tokens everywhere, and a package in which they are not is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.text.parity import PromptsDiffer
from tasks.train.package import prompt_parity
from tasks.train.package.prompt_parity import check_prompts

SYSTEM = "You are a test."


@pytest.fixture
def served(tiny_model: Path, tmp_path: Path) -> Path:
    """The tokenizer's files alone, to be changed."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
        shutil.copyfile(tiny_model / name, tmp_path / name)
    return tmp_path


def packaged(folder: Path, **changes: Any) -> dict[str, Any]:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = {name: settings.get(name) for name in prompt_parity.NAMED}
    template = (folder / "chat_template.jinja").read_text()
    return {"system": SYSTEM, "chat_template": template, "special_tokens": tokens} | changes


def test_equal_files_read_every_conversation_alike(tiny_model: Path, served: Path) -> None:
    assert check_prompts(SYSTEM, tiny_model, served, packaged(tiny_model)) == len(prompt_parity.CONVERSATIONS) == 5


def _another_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant\n", "assistant \n"))


def _another_pad(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace('"pad_token": "<|endoftext|>"', '"pad_token": "<|im_end|>"'))


def _another_split(folder: Path) -> None:
    """The same vocabulary without one merge: the same texts, other tokens."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["merges"] = content["model"]["merges"][1:]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (_another_template, "training and the gateway differ in prompt"),
        (_another_pad, "pad_token is"),
        (_another_split, "differ in prompt tokens"),
    ],
)
def test_a_served_folder_that_reads_otherwise_is_refused(
    tiny_model: Path, served: Path, change: Callable[[Path], None], cause: str
) -> None:
    change(served)
    with pytest.raises(PromptsDiffer, match=cause):
        check_prompts(SYSTEM, tiny_model, served, packaged(tiny_model))


def test_a_packaged_template_or_system_prompt_of_another_kind_is_refused(tiny_model: Path) -> None:
    template = packaged(tiny_model)["chat_template"]
    other = packaged(tiny_model, chat_template=template.replace("assistant\n", "assistant \n"))
    with pytest.raises(PromptsDiffer, match="training and the engine differ in prompt"):
        check_prompts(SYSTEM, tiny_model, tiny_model, other)
    with pytest.raises(PromptsDiffer, match="system prompt"):
        check_prompts(SYSTEM, tiny_model, tiny_model, packaged(tiny_model, system="Another."))


def test_a_template_that_ends_earlier_answers_otherwise_than_trained_is_refused(tiny_model: Path, served: Path) -> None:
    """In a history the end-of-turn token would stand behind a space, which no trained answer ends with."""
    template = packaged(tiny_model)["chat_template"].replace("'<|im_end|>'", "' <|im_end|>'")
    (served / "chat_template.jinja").write_text(template)
    with pytest.raises(PromptsDiffer, match="an answer of an earlier turn"):
        check_prompts(SYSTEM, served, served, packaged(served))
