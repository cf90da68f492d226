"""Self-Instruct: what is shown, what is new, which branch a task takes, and that it ends when it must."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.records import Seed
from tasks.corpus.construct.self_instruct import SelfInstruct, TaskPool, labelled
from tests.construct_root import seed
from tests.said_teacher import SaidTeacher, at_work

SEEDS = [
    seed("Explain what a building permit is.", "A permission by the municipality."),
    seed("Is this about money or time?", "time", "It takes two weeks.", classification=True),
    seed("List three tools of a carpenter.", "Saw, hammer, plane."),
    seed("Write a short reminder about an invoice.", "Please pay the invoice of May."),
]
NEW = "1. Compare a wooden house with one of stone."


def saying(tasks: str, kind: str, instance: str) -> SaidTeacher:
    def say(asked: str) -> str:
        if "more tasks" in asked:
            return tasks
        return kind if "classification task, whose" in asked else instance

    return SaidTeacher(say)


def made_of(
    teacher: SaidTeacher, root: Path, others: list[str] | None = None, language: str = "en", **changes: Any
) -> SelfInstruct:
    params = {"examples": 1, "max_requests": 60, "seeds_per_prompt": 4, "max_similarity": 0.7} | changes
    method = at_work(SelfInstruct, root, teacher, language, **params)
    method.build(SEEDS, others or [])
    return method


def test_rouge_l_is_by_characters() -> None:
    # LCS of abcde and aXcYe is ace: 2 × 3 / (5 + 5).
    assert TaskPool([], ["abcde"]).nearest("aXcYe", 0) == ("abcde", pytest.approx(0.6))
    assert TaskPool([], ["高速公路"]).nearest("高速铁路", 0) == ("高速公路", pytest.approx(0.75))


def test_a_plain_task_gets_its_input_first_and_is_shown_plain_seeds(root: Path) -> None:
    teacher = saying(NEW, "No", "Input: A hut.\nOutput: Wood is warmer.")
    made = made_of(teacher, root)
    (example,) = made.examples
    assert (example.instruction, example.input, example.output) == (NEW[3:], "A hut.", "Wood is warmer.")
    shown = teacher.asks[-1].messages
    assert [message.content for message in shown if message.role == "assistant"] == [
        f"Input: None\nOutput: {seed.output}" for seed in SEEDS if not seed.classification
    ]
    assert set(example.source) == {seed.id for seed in SEEDS}


def test_a_classification_task_gets_its_label_first_and_is_shown_labelled_seeds(root: Path) -> None:
    teacher = saying("1. Is this house of wood or stone?", "Yes.", "Label: stone\nInput: A castle on a hill.")
    (example,) = made_of(teacher, root).examples
    assert (example.input, example.output) == ("A castle on a hill.", "stone")
    assert teacher.asks[-1].messages[1].content == "Label: time\nInput: It takes two weeks."
    # Kinds are asked for without chance, by worked examples of both.
    kinds = [ask for ask in teacher.asks if ask.temperature == 0.0]
    said = [message.content for message in kinds[0].messages if message.role == "assistant"]
    assert said == ["Yes", "No", "No", "No"]


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        ("Input: A hut.\nOutput:", "no output in the reply"),
        ("Input: Wood.\nOutput: wood.", "output repeats what was asked"),
        ("Compare a wooden house with one of stone.", "output repeats what was asked"),
        ("", "empty reply"),
    ],
)
def test_an_instance_that_cannot_be_used_is_dropped(root: Path, instance: str, reason: str) -> None:
    made = made_of(saying(NEW, "No", instance), root)
    assert made.examples == []
    assert reason in {dropped.reason for dropped in made.dropped}


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ("1. List three tools of a carpenter!", "not novel"),
        ("1. Who builds the house?", "not novel"),
        ("1. Draw a picture of a house and its garden.", "not a task for text alone"),
        ("1. Why", "instruction too short or too long"),
        ("1. #include a header", "instruction begins with a mark"),
        ("A text without a list", "no task in the reply"),
        ("", "tasks: empty reply"),
    ],
)
def test_an_instruction_that_cannot_be_used_is_dropped(root: Path, tasks: str, reason: str) -> None:
    made = made_of(saying(tasks, "No", "Output: x"), root, others=["Who builds the houses?"])
    assert {dropped.reason for dropped in made.dropped} == {reason}
    assert made.examples == []


def test_the_same_task_twice_is_new_once_and_what_is_not_new_says_what_it_is_like(root: Path) -> None:
    made = made_of(saying(f"{NEW}\n2. {NEW[3:]}\n3. List three tools of a carpenter!", "No", "Output: Wood."), root)
    assert len(made.examples) == 1
    assert {dropped.reason for dropped in made.dropped} == {"not novel"}
    like = next(one for one in made.dropped if "List three tools of a carpenter." in one.detail)
    assert like.score == pytest.approx(62 / 64)  # all but the last of 32 characters are shared


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Input: a\nOutput: b", {"input": "a", "output": "b"}),
        ("Sure!\n**Input:** a\n**Output**: b\nand c", {"input": "a", "output": "b\nand c"}),
        ("Output: b\nInput: a\nOutput: c", {"output": "b", "input": "a"}),
        ("The Output: of this", {}),
    ],
)
def test_labels_are_read_where_a_line_begins(text: str, read: dict[str, str]) -> None:
    assert labelled(text, ("Input", "Output")) == read


def test_no_more_is_asked_than_allowed_and_nothing_is_padded(root: Path) -> None:
    teacher = saying("nothing", "No", "x")
    made = made_of(teacher, root, max_requests=20)
    assert made.examples == []
    assert 18 <= len(teacher.asks) <= 20


def test_a_spent_budget_ends_it(root: Path) -> None:
    teacher = saying("nothing", "No", "x")
    teacher.limit = 16
    made_of(teacher, root)
    assert len(teacher.asks) == 16


def test_it_works_in_chinese(root: Path) -> None:
    def say(asked: str) -> str:
        if "再写" in asked:
            return "5、比较木屋和石屋的优缺点。"
        return "否" if "分类任务" in asked else "输入：无\n输出：木屋更暖和，石屋更耐久。"

    made = made_of(SaidTeacher(say), root, language="zh")
    assert [(one.input, one.output) for one in made.examples] == [("", "木屋更暖和，石屋更耐久。")]


@given(st.integers(0, 30), st.integers(1, 10))
def test_a_quarter_of_what_is_shown_is_the_models_own(own: int, count: int) -> None:
    seeds: list[Seed] = [seed(f"Task {n}", "x") for n in range(20)]
    shown = TaskPool(seeds, [], [(f"own {n}", f"Own {n}") for n in range(own)]).shown(count, random.Random(1))
    assert len(shown) == count
    assert sum(identity.startswith("own") for identity, _ in shown) == min(own, count // 4)
