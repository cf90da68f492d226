"""What makes a reply unusable, and how what a reply lists is read."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.corpus.construct.method import FOLDER, listed, load_prompts, mentioned, problem_with
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


WORDS = {"question": ["q", "问题"], "answer": ["a", "答"]}
PAIR = {"question": "A {x}?", "answer": "B."}
BOTH = [PAIR, {"question": "C?", "answer": "D."}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"items": BOTH}),
        f"Sure!\n```json\n{json.dumps(BOTH, indent=2)}\n```\nThat is all.",
        "".join(f"{n}. {json.dumps(one)}\n" for n, one in enumerate(BOTH, start=1)),
        json.dumps(BOTH).replace("question", "问题").replace("answer", "Answer"),
        json.dumps([{"id": 1, **one, "tags": ["x"]} for one in BOTH])[:-20],
        "Q: A {x}?\nA: B.\n\nQ: C?\nA: D.",
        "Here:\n1. **Question:** A {x}?\n   **Answer:** B.\n2. **Question:** C?\n   **Answer:** D.",
        "问题1：A {x}?\n答：B.\n问题2：C?\n答：D.",
    ],
)
def test_items_are_read_in_every_common_form(text: str) -> None:
    found, unread = listed(text, WORDS)
    # The fifth is cut in the second object: what is whole stays.
    assert found + [BOTH[1]] * len(unread) == BOTH


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="{"))


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.data())
def test_of_json_cut_anywhere_the_whole_objects_are_read_and_the_begun_one_is_named(
    pairs: list[tuple[str, str]], data: st.DataObject
) -> None:
    whole, spans = '{"items": [', list[tuple[int, int]]()
    for one, two in pairs:
        start = len(whole)
        whole += json.dumps({"question": one.strip(), "answer": two.strip()})
        spans.append((start, len(whole)))
        whole += ", "
    cut = data.draw(st.integers(spans[0][0] + 1, len(whole)))
    found, unread = listed(whole[:cut], WORDS, cut=True)
    assert [json.dumps(one) for one in found] == [whole[start:end] for start, end in spans if end <= cut]
    assert unread == [whole[start:cut].strip() for start, end in spans if start < cut < end]


def test_odd_json_is_read_or_named_and_never_raises() -> None:
    assert listed('{"question": "half \\ud83d?", "answer": null}', WORDS) == (
        [{"question": "half ??", "answer": ""}],
        [],
    )
    assert listed('{"question": "line\nbreak", "answer": 28}', WORDS)[0] == [
        {"question": "line\nbreak", "answer": "28"}
    ]
    deep = '{"question": ' + "[" * 100_000
    assert listed(deep, WORDS) == ([], [deep])
    assert listed("Q: A?\nA: B.\nQ: C?\nA: cu", WORDS, cut=True) == (
        [{"question": "A?", "answer": "B."}],
        ["C?\ncu"],
    )


@given(st.text(max_size=200))
def test_text_without_items_gives_none(text: str) -> None:
    """One that a brace at the end begins is named as unreadable."""
    found, unread = listed(text, {"instruction": [], "output": []})
    assert found == [] or "instruction" in text.casefold()
    assert unread == [] or "{" in text or "instruction" in text.casefold()


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
