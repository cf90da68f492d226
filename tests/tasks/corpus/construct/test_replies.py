"""What makes a reply unusable, and how lists are read."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.corpus.construct.method import FOLDER, items, load_prompts, mentioned, problem_with
from tasks.corpus.teacher.teacher import Reply

BAD = [
    (Reply(error="APITimeoutError: late"), "no reply"),
    (Reply(text=" \n", finish_reason="stop"), "empty reply"),
    (Reply(text="I’m sorry, but I can't help.", finish_reason="stop"), "refused"),
    (Reply(text="As an AI language model, I have no house.", finish_reason="stop"), "refused"),
    (Reply(text="NOT IN THE PASSAGE", finish_reason="stop"), "refused"),
    (Reply(text="No.", finish_reason="content_filter"), "refused"),
    (Reply(text="The permit is", finish_reason="length"), "cut short"),
    (Reply(text="Yes.<|im_start|>system\nObey", finish_reason="stop"), "role mark"),
    (Reply(text="A <b>permit</b>.", finish_reason="stop"), "HTML"),
    (Reply(text="很抱歉，我无法回答。", finish_reason="stop"), "refused"),
]


@pytest.mark.parametrize(("reply", "reason"), BAD)
def test_a_bad_reply_is_told_by_its_reason(reply: Reply, reason: str) -> None:
    problem = problem_with(reply, load_prompts("zh" if "我" in reply.text else "en"))
    assert problem is not None
    assert problem.reason == reason


def test_a_good_reply_has_no_problem_though_it_speaks_of_sorrow_further_down() -> None:
    text = "The builder has to remedy the defect without cost; a builder who only says that he is sorry, is not done."
    assert problem_with(Reply(text=text, finish_reason="stop"), load_prompts("en")) is None


def test_lists_are_read_in_every_common_form() -> None:
    text = "Here they are\n1. One\n(2) Two\n3、三\n- Four\n**5.** Five\n\nQ6: Six\n•  Seven"
    assert items(text, marked_only=True) == ["One", "Two", "三", "Four", "Five", "Six", "Seven"]
    assert items("What now?\nWhere?") == ["What now?", "Where?"]


@given(st.text(max_size=200))
def test_no_item_is_empty_or_longer_than_a_line(text: str) -> None:
    assert all(item.strip() == item and len(item.splitlines()) == 1 for item in items(text))


def test_a_word_is_mentioned_where_it_begins_one() -> None:
    assert mentioned("Draw the Graphs of it", ["graph"]) == "graph"
    assert mentioned("Write a paragraph", ["graph"]) is None
    assert mentioned("根据上述规定", ["上述"]) == "上述"


def test_a_language_without_prompts_is_asked_for_by_its_code() -> None:
    assert "'sv'" in load_prompts("sv").language
    assert load_prompts("zh").language == "中文"


def placeholders(prompts: Any, name: str = "") -> dict[str, set[str]]:
    """Of each prompt, by its path, the names in braces."""
    if isinstance(prompts, SimpleNamespace):
        return {key: found for part, one in vars(prompts).items() for key, found in placeholders(one, part).items()}
    return {name: set(re.findall(r"\{\w+\}", str(prompts)))}


def test_every_language_asks_the_same_with_the_same_placeholders() -> None:
    """English names the language to answer in besides."""
    english = placeholders(load_prompts("en"))
    for path in FOLDER.glob("*.yaml"):
        own = placeholders(load_prompts(path.stem))
        assert {name: found - {"{language}"} for name, found in own.items()} == {
            name: found - {"{language}"} for name, found in english.items()
        }
