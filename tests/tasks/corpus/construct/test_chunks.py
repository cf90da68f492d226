"""Passages: within their tokens, covering all text, cut where sentences end, spans exact in any writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.files import digest_of
from tasks.core.records import Document
from tasks.corpus.construct.chunks import chunk

CHINESE = "机动车驾驶人应当遵守道路交通安全法律的规定。行人应当在人行道内行走！没有人行道的靠路边行走。" * 8


def document(text: str) -> Document:
    return Document(id=digest_of(text), name="law/x.txt", text=text, sha256=digest_of("file"))


def letters(text: str, **_: Any) -> dict[str, Any]:
    """A tokenizer with one token a character."""
    return {"offset_mapping": [(place, place + 1) for place in range(len(text))]}


def octets(text: str, **_: Any) -> dict[str, Any]:
    """A tokenizer with one token a byte of UTF-8."""
    return {"offset_mapping": [(place, place + 1) for place, c in enumerate(text) for _ in c.encode()]}


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model)


def test_a_passage_ends_with_a_sentence_and_the_next_begins_with_one() -> None:
    """Of 20 letters: `One is here.` ends at 12, the next 20 from 13 reach into the third sentence. Overlap 0."""
    found = chunk(document("One is here. Two is there. Three is."), letters, tokens=20, overlap=0)
    assert [(c.start, c.end, c.text) for c in found] == [
        (0, 12, "One is here."),
        (13, 26, "Two is there."),
        (27, 36, "Three is."),
    ]


def test_a_paragraphs_end_is_preferred_to_a_later_sentences_end() -> None:
    """20 letters reach the full stop behind `B b.` (at 18), the paragraph ends at 13, in the last half."""
    found = chunk(document("A long para\n\nB b. Ccccccc ccc."), letters, tokens=20, overlap=0)
    assert [c.text for c in found] == ["A long para", "B b. Ccccccc ccc."]


def test_passages_overlap_by_whole_sentences_where_they_fit() -> None:
    found = chunk(document("Aaa aaa. Bb. Ccc ccc. Ddd ddd. Ee."), letters, tokens=22, overlap=11)
    assert [c.text for c in found] == ["Aaa aaa. Bb. Ccc ccc.", "Ccc ccc. Ddd ddd. Ee."]


def test_chinese_is_cut_behind_its_full_stops(tokenizer: Any) -> None:
    found = chunk(document(CHINESE), tokenizer, tokens=100, overlap=20)
    assert len(found) > 3
    assert all(c.text[-1] in "。！" for c in found)


def test_a_word_without_end_is_cut_between_its_tokens() -> None:
    assert [c.text for c in chunk(document("a" * 25), letters, tokens=10, overlap=0)] == ["a" * 10, "a" * 10, "a" * 5]


def test_a_character_of_more_tokens_than_a_passage_is_not_cut() -> None:
    assert [c.text for c in chunk(document("😀😀"), octets, tokens=2, overlap=0)] == ["😀", "😀"]


def test_an_overlap_as_long_as_the_passage_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap 8 must be below tokens 8"):
        chunk(document("x"), letters, tokens=8, overlap=8)


TEXTS = st.text(st.sampled_from("ab 。.\n字😀!"), max_size=120)


@settings(deadline=None)
@given(TEXTS, st.integers(1, 30), st.data(), st.sampled_from([letters, octets]))
def test_passages_hold_all_text_in_order_and_their_spans_are_exact(
    text: str, tokens: int, data: st.DataObject, tokenize: Any
) -> None:
    overlap = data.draw(st.integers(0, tokens - 1))
    found = chunk(document(text), tokenize, tokens, overlap)
    covered: set[int] = set()
    for one, following in zip(found, [*found[1:], None], strict=False):
        assert text[one.start : one.end] == one.text == one.text.strip() != ""
        used = len(tokenize(one.text)["offset_mapping"])
        assert used <= tokens or len(one.text) == 1
        covered |= set(range(one.start, one.end))
        if following:
            assert one.start < following.start and one.end < following.end
            assert len(tokenize(text[following.start : one.end])["offset_mapping"]) <= overlap
    assert covered >= {place for place, character in enumerate(text) if not character.isspace()}
