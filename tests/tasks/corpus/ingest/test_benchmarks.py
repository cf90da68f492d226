"""Benchmarks: MMLU items are audited, safety items carry both openings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.domain import MmluSource, SafetySource, load_domain
from tasks.core.records import BadLine
from tasks.corpus.ingest.benchmarks import read_mmlu, read_safety, refused, split_choices

MMLU = MmluSource(name="m", files=["x"], licence="x", attribution="x")


def test_a_question_is_split_into_four_answer_texts() -> None:
    text = "Which is even?\n(A) one (B) two (C) three (D) five"
    assert split_choices(text) == ("Which is even?", ("one", "two", "three", "five"))


def test_a_letter_in_the_question_is_not_an_option() -> None:
    question, choices = split_choices("Is (A) sum (B) or less? (A) 1 (B) 2 (C) 3 (D) 4")
    assert question == "Is (A) sum (B) or less?"
    assert choices == ("1", "2", "3", "4")


@pytest.mark.parametrize(
    "text, problem",
    [
        ("Q (A) 1 (B) 2 (C) 3", "options are A, B, C"),
        ("Q (A) 1 (B) 2 (D) 3 (C) 4", "not A, B, C, D"),
        ("Q (A) 1 (B) 2 (C) 2 (D) 4", "say the same"),
        ("Q (A) 1 (B)  (C) 2 (D) 4", "empty"),
        ("no options", "missing"),
    ],
)
def test_a_corrupt_question_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        split_choices(text)


def test_an_item_whose_solution_names_two_answers_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mmlu_x.yaml"
    path.write_text(
        "fewshot_config:\n  samples:\n"
        "  - {question: 'Q (A) 1 (B) 2 (C) 3 (D) 4', target: 'The answer is (B).'}\n"
        "  - {question: 'R (A) 1 (B) 2 (C) 3 (D) 4', target: 'The answer is (B). So the answer is (C).'}\n"
        "  - {question: 'S (A) 1 (B) 2 (C) 3 (D) 4', target: 'Who knows.'}\n"
    )
    bad: list[BadLine] = []
    items = read_mmlu(MMLU, [path], bad)
    assert [(item.prompt, item.answer, item.category) for item in items] == [("Q", 1, "x")]
    assert ["names the answers B and C" in bad[0].cause, "names no answer" in bad[1].cause] == [True, True]


def test_the_audit_of_the_real_items_leaves_out_the_three_known_to_be_corrupt(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    bad: list[BadLine] = []
    items = read_mmlu(domain.mmlu, domain.paths(domain.mmlu), bad)
    assert len(items) == 279
    assert sorted(Path(line.file).stem for line in bad) == [
        "mmlu_college_chemistry",
        "mmlu_college_physics",
        "mmlu_high_school_biology",
    ]


def test_a_safety_item_prefers_the_refusal(tmp_path: Path) -> None:
    path = tmp_path / "requests.txt"
    path.write_text("Do harm\n\nDo harm\nDo more\n")
    given = SafetySource(
        name="s",
        files=["x"],
        refusal="No.",
        compliance="Sure.",
        replay_refusals=["Never.", "I will not."],
        licence="x",
        attribution="x",
    )
    items = read_safety(given, [path])
    assert [(item.prompt, item.choices, item.answer) for item in items] == [
        ("Do harm", ("No.", "Sure."), 0),
        ("Do more", ("No.", "Sure."), 0),
    ]
    trained = refused(given, items, "en")
    assert [example.instruction for example in trained] == ["Do harm", "Do more"]
    assert {example.output for example in trained} <= {"Never.", "I will not."}
