"""Self-Instruct: what is shown, what is new, what a task's answer is, and that it ends when it must."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.records import Seed
from tasks.corpus.construct.self_instruct import FIELDS, SelfInstruct, TaskPool
from tests.construct_root import seed
from tests.said_teacher import SaidTeacher, at_work, said_items

SEEDS = [
    seed("Explain what a building permit is.", "A permission by the municipality."),
    seed("Is this about money or time?", "time", "It takes two weeks.", classification=True),
    seed("List three tools of a carpenter.", "Saw, hammer, plane."),
    seed("Write a short reminder about an invoice.", "Please pay the invoice of May."),
]
TASK = ("Compare a wooden house with one of stone.", "", "A hut.", "Wood is warmer.")


def saying(*tasks: tuple[str, str, str, str]) -> SaidTeacher:
    return SaidTeacher(lambda asked: said_items(*tasks, fields=FIELDS))


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


def test_one_request_gives_whole_tasks_and_shows_whole_seeds(root: Path) -> None:
    teacher = saying(TASK)
    made = made_of(teacher, root)
    (example,) = made.examples
    assert (example.instruction, example.input, example.output) == (TASK[0], *TASK[2:])
    assert set(example.source) == {seed.id for seed in SEEDS}
    (ask,) = teacher.asks
    # Room for four tasks of the 192 tokens in params.yaml.
    assert (ask.fields, ask.max_tokens) == (FIELDS, 4 * 192)
    listed = next(line for line in ask.messages[0].content.splitlines() if line.startswith("{"))
    shown = {one["instruction"]: one for one in json.loads(listed)["items"]}
    assert set(shown) == {seed.instruction for seed in SEEDS}
    # Of a classification the label stands before its input, as in the paper.
    assert list(shown[SEEDS[1].instruction].values()) == [SEEDS[1].instruction, "time", "It takes two weeks.", ""]
    assert list(shown[SEEDS[2].instruction].values()) == [SEEDS[2].instruction, "", "", "Saw, hammer, plane."]


def test_a_classification_tasks_output_is_its_label(root: Path) -> None:
    made = made_of(saying(("Is this house of wood or stone?", "stone", "A castle on a hill.", "")), root)
    (example,) = made.examples
    assert (example.input, example.output) == ("A castle on a hill.", "stone")
    assert made.receipts[0].detail == "classification"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (("List three tools of a carpenter!", "", "", "x"), "not novel"),
        (("Who builds the house?", "", "", "x"), "not novel"),
        (("Draw a picture of a house and its garden.", "", "", "x"), "not a task for text alone"),
        (("Why", "", "", "x"), "instruction too short or too long"),
        (("#include a header", "", "", "x"), "instruction begins with a mark"),
        ((TASK[0], "", "A hut.", ""), "empty reply"),
        ((TASK[0], "", "Wood.", "wood."), "output repeats what was asked"),
        ((TASK[0], "", "", TASK[0]), "output repeats what was asked"),
        ((TASK[0], "", "A <b>hut</b>.", "Wood."), "HTML"),
    ],
)
def test_a_task_that_cannot_be_used_is_dropped(root: Path, task: tuple[str, str, str, str], reason: str) -> None:
    made = made_of(saying(task), root, others=["Who builds the houses?"])
    assert {dropped.reason for dropped in made.dropped} == {reason}
    assert made.examples == []


@pytest.mark.parametrize(("text", "reason"), [("A text", "no instruction in the reply"), ("", "empty reply")])
def test_a_reply_without_a_task_is_dropped(root: Path, text: str, reason: str) -> None:
    made = made_of(SaidTeacher(lambda asked: text), root)
    assert {dropped.reason for dropped in made.dropped} == {reason}


def test_the_same_task_twice_is_new_once_and_what_is_not_new_says_what_it_is_like(root: Path) -> None:
    made = made_of(saying(TASK, TASK, ("List three tools of a carpenter!", "", "", "Saw.")), root, max_requests=1)
    assert len(made.examples) == 1
    assert {dropped.reason for dropped in made.dropped} == {"not novel"}
    like = next(one for one in made.dropped if "List three tools of a carpenter." in one.detail)
    assert like.score == pytest.approx(62 / 64)  # all but the last of 32 characters are shared


def test_no_more_is_kept_than_is_wanted(root: Path) -> None:
    made = made_of(saying(TASK, ("Name the three oldest brick towers of Lund.", "", "", "I know none.")), root)
    assert len(made.examples) == 1
    assert [dropped.reason for dropped in made.dropped] == ["not needed"]


@pytest.mark.parametrize(("examples", "requests"), [(100, 20), (8, 20)])
def test_no_more_is_asked_than_allowed_and_nothing_is_padded(root: Path, examples: int, requests: int) -> None:
    teacher = SaidTeacher(lambda asked: "nothing")
    made = made_of(teacher, root, max_requests=20, examples=examples)
    assert made.examples == []
    assert len(teacher.asks) == requests
    assert len({(ask.messages, ask.sample) for ask in teacher.asks}) == requests


def test_a_spent_budget_ends_it(root: Path) -> None:
    teacher = SaidTeacher(lambda asked: "nothing", limit=16)
    made_of(teacher, root, examples=100)
    assert len(teacher.asks) == 16


def test_it_works_in_chinese(root: Path) -> None:
    reply = '[{"指令": "比较木屋和石屋的优缺点。", "输入": "无", "输出": "木屋更暖和，石屋更耐久。"}]'
    made = made_of(SaidTeacher(lambda asked: reply), root, language="zh")
    assert [(one.input, one.output) for one in made.examples] == [("", "木屋更暖和，石屋更耐久。")]


@given(st.integers(0, 30), st.integers(1, 10))
def test_a_quarter_of_what_is_shown_is_the_models_own(own: int, count: int) -> None:
    seeds: list[Seed] = [seed(f"Task {n}", "x") for n in range(20)]
    shown = TaskPool(seeds, [], [seed(f"Own {n}", "x") for n in range(own)]).shown(count, random.Random(1))
    assert len(shown) == count
    assert sum(one.instruction.startswith("Own") for one in shown) == min(own, count // 4)
