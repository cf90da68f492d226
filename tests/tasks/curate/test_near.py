"""Near duplicates by character shingles."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.curate.near import NearIndex, duplicate_groups, jaccard, normalise, shingles


def test_similarity_is_shared_shingles_over_all_shingles() -> None:
    """abcdef has abc, bcd, cde, def; abcdeg has abc, bcd, cde, deg: 3 shared of 5."""
    assert jaccard(shingles("abcdef", 3), shingles("abcdeg", 3)) == pytest.approx(3 / 5)


def test_case_width_and_punctuation_do_not_count() -> None:
    assert normalise("Ｗhat,  is\tROT?") == normalise("what is rot")


def test_chinese_needs_no_spaces() -> None:
    index = NearIndex(threshold=0.6, shingle=2)
    index.add("建筑许可证需要多长时间才能获得批准")
    assert index.near("建筑许可证需要多长时间才能获得批准？")[0][1] == 1.0
    assert index.near("道路交通安全法规定了什么内容") == []


def test_groups_are_transitive() -> None:
    """b is near a and c is near b, while a and c share too little to be near each other."""
    a, b, c = "0123456789abcdefghij", "456789abcdefghijklmn", "89abcdefghijklmnopqr"
    assert jaccard(shingles(a, 3), shingles(c, 3)) < 0.6 < jaccard(shingles(a, 3), shingles(b, 3))
    assert duplicate_groups([a, "something else entirely", b, c], 0.6, 3) == [0, 1, 0, 0]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.lists(st.text(alphabet="abcdé房 ", min_size=1, max_size=60), min_size=1, max_size=12))
def test_the_index_finds_exactly_the_pairs_that_a_full_comparison_finds(texts: list[str]) -> None:
    index = NearIndex(threshold=0.8, shingle=3)
    for text in texts:
        index.add(text)
    for text in texts:
        grams = shingles(text, 3)
        expected = {n for n, other in enumerate(texts) if jaccard(grams, shingles(other, 3)) >= 0.8}
        assert {number for number, _ in index.near(text)} == expected
