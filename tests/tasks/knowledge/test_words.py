"""Words as they are searched, in writings with spaces and without."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.knowledge.words import words_of


@pytest.mark.parametrize(
    "text, words",
    [
        ("Får jag bygga 15 m²?", ["får", "jag", "bygga", "15", "m2"]),
        ("ＦＡＱ-entry_7", ["faq", "entry", "7"]),
        ("CO2浓度", ["co2", "浓度"]),
        ("机动车登记", ["机动", "动车", "机动车", "登记"]),
        ("ひらがな か", ["ひら", "らが", "がな", "か"]),
        ("ไทย", ["ไท", "ทย"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        (" ?! … ", []),
    ],
)
def test_a_text_is_cut_into_words_as_its_writing_asks(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text(alphabet="aBÅé1 ._机动车登记かなไ", max_size=20), st.text(alphabet="xY9 车な", max_size=10))
def test_case_and_width_do_not_count_and_texts_side_by_side_give_the_words_of_both(left: str, right: str) -> None:
    words = words_of(left)
    assert words_of(f"{left} {right}") == words + words_of(right)
    assert words_of(left.upper()) == words_of(left.replace("a", "ａ").replace("1", "１")) == words
    assert all(word and not word.isspace() for word in words)
    assert {c for c in left.casefold() if c not in " ._"} == {c for word in words for c in word}, "nothing is lost"
