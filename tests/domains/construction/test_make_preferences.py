"""Preferences made by a rule: which answers are compared, and from what they are drawn."""

from __future__ import annotations

from typing import Any

import pytest

from domains.construction.make_preferences import (
    PreferenceError,
    preferences_of,
    questions_of,
    whole_sentences,
    wrong_answers,
)
from tasks.core.records import Example
from tests.examples import an_example


class Words:
    """A tokenizer whose tokens are words."""

    def __call__(self, text: str, **_: Any) -> dict[str, list[str]]:
        return {"input_ids": text.split()}


def example(number: int, category: str, origin: str = "human", words: int = 3) -> Example:
    said = f"Answer {number} " + "word " * (words - 2)
    return an_example(f"Question {number}?", said, origin=origin, source=(f"faq/{number}",), category=category)


def test_questions_are_of_people_with_short_answers_and_no_seeds() -> None:
    examples = [example(1, "roof"), example(2, "bath"), example(3, "seed"), example(4, "roof", origin="self_qa")]
    examples += [example(5, "roof", words=49), example(6, "roof", words=48)]
    drawn = questions_of(examples, Words(), 10, seed=1)
    assert sorted(example.source[0] for example in drawn) == ["faq/1", "faq/2", "faq/6"]


def test_one_category_has_no_wrong_one() -> None:
    with pytest.raises(PreferenceError, match="two categories"):
        questions_of([example(1, "roof"), example(2, "roof")], Words(), 10, seed=1)


def test_a_wrong_answer_is_of_another_category() -> None:
    examples = [example(1, "roof"), example(2, "roof"), example(3, "bath")]
    assert wrong_answers(examples, seed=1)[:2] == [examples[2].output] * 2
    assert wrong_answers(examples, seed=1)[2] in {examples[0].output, examples[1].output}


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("It is so. And then it", "It is so."),
        ("Is it? Yes! No", "Is it? Yes!"),
        ("Costs 1.5 million and", ""),
        (" One.\nTwo. ", "One.\nTwo."),
    ],
)
def test_an_answer_ends_with_its_last_whole_sentence(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


def test_four_answers_make_the_four_pairs_whose_order_is_known() -> None:
    answers = {"reference": "A.", "base_model": "B.", "base_model_sampled": "C.", "wrong_category": "D."}
    made = preferences_of(example(1, "roof"), answers)
    assert [(one.chosen, one.rejected) for one in made] == [("A.", "B."), ("A.", "C."), ("A.", "D."), ("B.", "D.")]
    assert made[0].source == ("reference", "base_model", "faq/1")
    assert made[0].prompt[0].content == "Question 1?"


def test_an_empty_or_repeated_answer_makes_no_pair() -> None:
    answers = {"reference": "A.", "base_model": "", "base_model_sampled": "A.", "wrong_category": "D."}
    assert preferences_of(example(1, "roof"), answers) == []
    answers["base_model_sampled"] = "C."
    made = preferences_of(example(1, "roof"), answers)
    assert [(one.chosen, one.rejected) for one in made] == [("A.", "C."), ("A.", "D.")]
