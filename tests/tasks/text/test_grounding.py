"""How far an answer follows from its evidence: by hand, in several scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text.grounding import ground, groundedness

PERMIT = "A building permit is required. The fee is 1,000 kronor and the decision takes 10 weeks."
ROAD = "高速公路限速标志标明的最高时速不得超过一百二十公里。行人不得进入高速公路。罚款200元。"


def test_every_letter_of_a_word_counts_for_or_against() -> None:
    # permit 6 + required 8 stand in the evidence, "lawyer" 6 does not: 14 of 20.
    assert groundedness("permit required lawyer", PERMIT) == pytest.approx(14 / 20)


def test_another_form_of_a_word_counts_as_the_word_and_a_short_common_beginning_does_not() -> None:
    assert groundedness("permits", PERMIT) == 1.0  # six of seven letters
    assert groundedness("perform", PERMIT) == 0.0  # three of seven


def test_what_the_question_says_is_neither_support_nor_claim() -> None:
    # Beyond the question: decision 8, takes 5, weeks 5 and 10; "lawyer" 6 more are not supported.
    question = "How long does the lawyer need?"
    assert groundedness("The lawyer needs 10 weeks.", PERMIT, question) == 1.0
    assert groundedness("The lawyer needs 10 weeks.", PERMIT) < 1.0


def test_an_answer_that_adds_nothing_to_its_question_is_measured_as_a_whole() -> None:
    assert groundedness("A lawyer.", PERMIT, "Is a lawyer required?") == pytest.approx(1 / 7)


def test_a_number_that_is_nowhere_makes_the_answer_ungrounded() -> None:
    grounding = ground("The decision takes 12 weeks.", PERMIT)
    assert (grounding.score, grounding.missing) == (0.0, ("12",))
    assert "12" in str(grounding)
    assert groundedness("After 12 weeks the fee is 1,000 kronor.", PERMIT, "What about 12 weeks?") > 0.0


@pytest.mark.parametrize("number", ["1,000", "1.000", "1000", "1 000", "１０００", "١٠٠٠", "01000", "1000.0", "1’000"])
def test_a_number_is_the_same_however_it_is_written(number: str) -> None:
    assert ground(f"The fee is {number} kronor.", PERMIT).missing == ()


def test_the_numbers_of_a_lists_items_say_nothing() -> None:
    assert groundedness("1. building\n2. permit\n(3) fee", PERMIT) == 1.0


def test_decimals_are_not_thousands() -> None:
    assert ground("1.5 m", "15 m").missing == ("1.5",)
    assert ground("1,50 m", "1.5 m").missing == ()


def test_chinese_is_measured_by_pairs_of_characters() -> None:
    # 行人 and 不得进入 stand there; 车 alone does not: 6 of 7.
    assert groundedness("行人、车不得进入", ROAD) == pytest.approx(6 / 7)
    assert groundedness("应当携带驾驶证", ROAD) == 0.0
    assert groundedness("罚款500元", ROAD) == 0.0
    assert groundedness("罚款２００元", ROAD) == pytest.approx(5 / 6)  # 元 stands alone beside a number


@pytest.mark.parametrize("answer", ["", "...", "？！", "\n"])
def test_an_answer_without_a_letter_is_not_grounded(answer: str) -> None:
    assert groundedness(answer, PERMIT) == 0.0


@given(st.text(max_size=80), st.text(max_size=200), st.text(max_size=40))
def test_it_is_a_share_for_any_text(answer: str, evidence: str, question: str) -> None:
    assert 0.0 <= groundedness(answer, evidence, question) <= 1.0


@given(st.text(min_size=1, max_size=120))
def test_a_text_lacks_no_number_of_its_own(text: str) -> None:
    assert ground(text, text).missing == ()
