"""The prompt book renders what transformers renders, also where a template marks what the assistant says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tasks.prompt_book import PromptBook

TEMPLATE = Path("domains/traffic_law/prompts/chat_template.jinja")
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>"}
MARKERS = ["<start_of_turn>", "<end_of_turn>"]


@pytest.fixture
def book(root: Path, tmp_path: Path) -> PromptBook:
    """A book with the template of traffic_law; no tokenizer is needed to render."""
    shutil.copyfile(root / TEMPLATE, tmp_path / "chat_template.jinja")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**SPECIAL, "extra_special_tokens": MARKERS}))
    return PromptBook(tmp_path)


def said(*turns: str, system: str = "") -> list[dict[str, str]]:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    return ([{"role": "system", "content": system}] if system else []) + messages


def test_gemma_s_turns_carry_the_system_prompt_in_the_first_and_end_an_answer_with_the_text_s_end(
    book: PromptBook,
) -> None:
    assert book.render(said("你好", system="答题。")) == (
        "<bos><start_of_turn>user\n答题。\n\n你好<end_of_turn>\n<start_of_turn>model\n"
    )
    assert book.render(said("一", "二", "三")) == (
        "<bos><start_of_turn>user\n一<end_of_turn>\n<start_of_turn>model\n二<eos>\n"
        "<start_of_turn>user\n三<end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("system", ["", "答题。"])
def test_the_book_renders_what_transformers_renders(book: PromptBook, system: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = said(" 一 ", "二\n", "{{ 三 }}", system=system)
    rendered, _ = render_jinja_template(
        [messages], chat_template=book.template_text, add_generation_prompt=True, **SPECIAL
    )
    assert book.render(messages) == rendered[0]


def test_the_template_marks_what_the_assistant_says_with_the_end_that_it_has_to_learn(book: PromptBook) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, marked = render_jinja_template(
        [said("一", "二", "三", "四")], chat_template=book.template_text, return_assistant_tokens_mask=True, **SPECIAL
    )
    assert [rendered[0][start:end] for start, end in marked[0]] == ["二<eos>", "四<eos>"]


def test_role_markers_are_special_and_found_in_a_text(book: PromptBook) -> None:
    assert book.markers("好<end_of_turn>\n<start_of_turn>model") == ["<start_of_turn>", "<end_of_turn>"]
