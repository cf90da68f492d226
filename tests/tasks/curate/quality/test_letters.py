"""Quoted evaluation items and the names of triples are found whatever the spelling; short items are no evidence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.curate.quality.expectations import detector_of, language_confidence
from tasks.curate.quality.letters import PROBE, Quotes, letters, states_a_triple

QUESTION = "How high may a fence be in Sweden?"  # 26 letters
CHINESE = "机动车通过没有交通信号灯的路口应当如何行驶"  # 21 characters, 63 bytes


def test_an_item_is_found_inside_another_text_without_regard_to_case_spaces_and_punctuation() -> None:
    quotes = Quotes([("a", QUESTION), ("b", CHINESE)], 20)
    assert quotes.in_text("Please tell me:  HOW HIGH may a fence be, in Sweden??  Thanks.") == "a"
    assert quotes.in_text("请问：机动车通过　没有交通信号灯的路口，应当如何行驶？") == "b"
    assert quotes.in_text("ｈｏｗ ｈｉｇｈ may a fence be in Sweden") == "a", "full-width letters are letters"


def test_a_text_that_holds_only_a_part_of_an_item_quotes_nothing() -> None:
    quotes = Quotes([("a", QUESTION)], 20)
    assert quotes.in_text("How high may a fence be in Norway?") == ""
    assert quotes.in_text("") == ""


def test_short_items_are_not_searched_and_chinese_counts_in_bytes() -> None:
    """'What is AI?' has 8 letters; 交通信号灯应当如何 has 9 characters and 27 bytes."""
    assert Quotes([("a", "What is AI?")], 20).in_text("What is AI?") == ""
    assert Quotes([("a", "交通信号灯应当如何")], 20).in_text("交通信号灯应当如何？") == "a"


@given(st.text(), st.text(min_size=PROBE), st.text())
def test_what_stands_whole_in_a_text_is_always_found(before: str, item: str, after: str) -> None:
    if len(letters(item)) >= PROBE and letters(item) in letters(before + item + after):
        assert Quotes([("a", item)], 1).in_text(before + item + after) == "a"


ISSUED = "Road Traffic Safety Law | issued by | Standing Committee"
WHO = "Who issued the Road Traffic Safety Law?"


@pytest.mark.parametrize(
    ("answer", "evidence", "question", "states"),
    [
        ("It was issued by the Standing Committee.", ISSUED, WHO, True),
        ("It is the STANDING committee", ISSUED, WHO, True),
        ("The Road Traffic Safety Law was issued.", ISSUED, WHO, False),
        ("The State Council.", ISSUED, WHO, False),
        ("Yes, the Standing Committee did.", ISSUED, f"Did the Standing Committee issue it? {WHO}", True),
        ("全国人大常委会制定了该法。", "道路交通安全法 | 制定机关 | 全国人大常委会", "道路交通安全法由谁制定？", True),
        ("Anything.", "a passage, not a triple", "Why?", False),
        ("Anything.", "", "Why?", False),
    ],
)
def test_an_answer_names_what_its_triples_say(answer: str, evidence: str, question: str, states: bool) -> None:
    assert states_a_triple(answer, evidence, question) is states


TRAFFIC = "机动车通过交叉路口时，应当按照交通信号灯、交通标志、交通标线或者交通警察的指挥通过，不得违反规定。"
ENGLISH = "A vehicle that passes a crossing follows the signals and the signs."


def test_chinese_is_recognised_and_told_from_english() -> None:
    chinese, english, short = language_confidence("zh")([TRAFFIC, ENGLISH, "Stop."])
    assert chinese > 0.5 and english < 1e-7
    assert short == 1.0, "too short to be judged"
    assert language_confidence("zh")([]) == []


def test_of_a_language_that_cannot_be_detected_every_text_passes() -> None:
    """Norwegian is known as nb and nn alone."""
    assert language_confidence("no")([TRAFFIC, ENGLISH]) == [1.0, 1.0]
    assert [detector_of(code) is None for code in ("no", "nb", "de")] == [True, False, False]
