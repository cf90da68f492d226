"""Quoted evaluation items are found whatever the spelling, and short ones are no evidence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.curate.quality.quotes import PROBE, Quotes, letters

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
