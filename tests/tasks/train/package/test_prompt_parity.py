"""Prompts are the same tokens everywhere, and a package in which they are not is refused."""

from __future__ import annotations

import json
import shutil
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


def packaged(folder: Path) -> dict[str, Any]:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokens = {name: settings.get(name) for name in prompt_parity.NAMED}
    template = (folder / "chat_template.jinja").read_text()
    return {"system": SYSTEM, "chat_template": template, "special_tokens": tokens}


def test_equal_files_read_every_conversation_alike_and_another_package_is_refused(
    tiny_model: Path, served: Path
) -> None:
    whole = packaged(tiny_model)
    assert check_prompts(SYSTEM, tiny_model, served, whole) == len(prompt_parity.CONVERSATIONS) == 5
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
