"""Near duplicates by character shingles."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.similarity import neighbours
from tasks.similarity.near import (
    MOST,
    NearIndex,
    bands_for,
    duplicate_groups,
    matches,
    near_pairs,
    normalise,
    shingle_hashes,
    similarities,
)
from tasks.similarity.neighbours import on_grid, pair_cosines, similar_pairs
from tests.planted import jaccard, shingles

TEXTS = st.lists(st.text(alphabet="abcdé房 ", min_size=1, max_size=60), min_size=1, max_size=12)


def test_similarity_is_shared_shingles_over_all_shingles() -> None:
    """abcdef has abc, bcd, cde, def; abcdeg has abc, bcd, cde, deg: 3 shared of 5."""
    assert jaccard(shingles("abcdef", 3), shingles("abcdeg", 3)) == pytest.approx(3 / 5)
    texts = ["abcdef", "abcdeg"]
    assert similarities(np.array([[0, 1]]), texts, 3) == pytest.approx([3 / 5])


def test_case_width_and_punctuation_do_not_count() -> None:
    assert normalise("Ｗhat,  is\tROT?") == normalise("what is rot")


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=40))
def test_the_quick_way_for_plain_text_gives_what_the_general_one_gives(text: str) -> None:
    if any(character.isalnum() for character in text):
        assert normalise(text + " é").removesuffix("é").strip() == normalise(text)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TEXTS, st.integers(1, 6))
def test_hashes_are_those_of_each_text_alone_and_as_many_as_its_shingles(texts: list[str], size: int) -> None:
    hashes, offsets = shingle_hashes(texts, size)
    for number, text in enumerate(texts):
        own = hashes[int(offsets[number]) : int(offsets[number + 1])]
        assert own.tolist() == shingle_hashes([text], size)[0].tolist()
        assert len(set(own.tolist())) == len(shingles(text, size))


def test_a_short_text_is_not_the_beginning_of_a_longer_one_and_lone_surrogates_are_texts() -> None:
    assert near_pairs(["ab", "abcdefgh", "ab", "\ud800", ""], 0.8, 5).tolist() == [[0, 2]]


def test_texts_of_signs_alone_are_told_apart() -> None:
    assert near_pairs(["🙂", "?!", "🙁", "...", "🙂 "], 0.8, 5).tolist() == [[0, 4]]


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.8, 0.9])
def test_a_pair_at_the_threshold_shares_a_band_but_for_one_in_a_thousand(threshold: float) -> None:
    bands, rows = bands_for(threshold, 128)
    assert bands * rows <= 128 and 1 - (1 - threshold**rows) ** bands >= 0.999
    assert 1 - (1 - threshold ** (rows + 1)) ** (128 // (rows + 1)) < 0.999  # one more row would miss more


def test_groups_are_transitive() -> None:
    """b is near a and c is near b, while a and c share too little to be near each other."""
    a, b, c = "0123456789abcdefghij", "456789abcdefghijklmn", "89abcdefghijklmnopqr"
    assert jaccard(shingles(a, 3), shingles(c, 3)) < 0.6 < jaccard(shingles(a, 3), shingles(b, 3))
    assert duplicate_groups([a, "something else entirely", b, c], 0.6, 3) == [0, 1, 0, 0]


@settings(deadline=None, max_examples=30, derandomize=True)
@given(TEXTS)
def test_the_pairs_are_exactly_those_that_a_full_comparison_finds(texts: list[str]) -> None:
    grams = [shingles(text, 3) for text in texts]
    count = range(len(texts))
    expected = [[a, b] for a in count for b in count if a < b and jaccard(grams[a], grams[b]) >= 0.8]
    assert near_pairs(texts, 0.8, 3).tolist() == expected


@settings(deadline=None, max_examples=30, derandomize=True)
@given(TEXTS, TEXTS)
def test_matches_are_exactly_those_that_a_full_comparison_finds(known: list[str], asked: list[str]) -> None:
    pairs, scores = matches(asked, known, 0.8, 3)
    grams = [shingles(text, 3) for text in known]
    likeness = {(n, k): jaccard(shingles(text, 3), g) for n, text in enumerate(asked) for k, g in enumerate(grams)}
    found = dict(zip(map(tuple, pairs.tolist()), scores.tolist(), strict=True))
    assert found == {pair: score for pair, score in likeness.items() if score >= 0.8}


def test_a_large_bucket_is_compared_with_those_first_in_order_only() -> None:
    """100 equal texts: each of the others with the 32 first, in the order that is asked for: here the last ones."""
    index = NearIndex(0.8, 5)
    index.add(["one and the same text"] * 100)
    pairs = index.pairs(np.arange(100)[::-1])
    assert len(pairs) == sum(min(place, MOST) for place in range(100))
    assert set(pairs[:, 1].tolist()) == set(range(100 - MOST, 100))


def test_batches_leave_no_mark() -> None:
    generator = random.Random(3)
    texts = ["".join(generator.choices("abcdefgh", k=40)) for _ in range(150)]
    texts += [text[1:] for text in texts]
    whole, parts = NearIndex(0.5, 3), NearIndex(0.5, 3)
    whole.add(texts)
    for start in range(0, 300, 70):
        parts.add(texts[start : start + 70])
    assert whole.pairs().tolist() == parts.pairs().tolist() != []


def test_no_texts_have_no_pairs() -> None:
    assert NearIndex(0.8, 5).pairs().tolist() == matches([], ["x"], 0.8, 5)[0].tolist() == []
    assert matches(["x"], [], 0.8, 5)[0].tolist() == []
    assert duplicate_groups([], 0.8, 5) == []


def units(rows: int, dimensions: int) -> np.ndarray:
    """Unit vectors in pairs: each even row and the one after it are some 0.95 alike, all others near 0."""
    generator = np.random.default_rng(5)
    vectors = np.repeat(generator.normal(size=(rows // 2, dimensions)), 2, axis=0)
    vectors += 0.22 * generator.normal(size=(rows, dimensions))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_pair_at_the_cosine_counts_and_one_below_it_does_not() -> None:
    """Cosines 0.75 (rows 0 and 1), 0.5 (1 and 2) and 0 (0 and 2)."""
    vectors = np.array([[1, 0], [0.75, 0.5], [0, 1]], dtype=np.float32)
    pairs, cosines = similar_pairs(vectors, 0.75)
    assert pairs.tolist() == [[0, 1]] and cosines.tolist() == [0.75]
    assert similar_pairs(vectors, 0.5)[0].tolist() == [[0, 1], [1, 2]]
    assert similar_pairs(vectors[:1], 0.5)[0].tolist() == similar_pairs(vectors[:0], 0.5)[0].tolist() == []
    assert pair_cosines(vectors, np.empty((0, 2), np.int64)).tolist() == []


def test_blocks_leave_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = on_grid(units(102, 64))
    pairs, cosines = similar_pairs(vectors, 0.3)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    parts = similar_pairs(vectors, 0.3)
    assert parts[0].tolist() == pairs.tolist() and parts[1].tolist() == cosines.tolist()
    assert pair_cosines(vectors, pairs).tolist() == cosines.tolist() != []


def test_on_the_grid_float32_is_exact_in_whatever_order_it_adds() -> None:
    vectors = on_grid(units(200, 384))
    expected = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    assert np.array_equal(vectors @ vectors.T, expected)
    order = np.random.default_rng(1).permutation(384)
    assert np.array_equal(np.cumsum(vectors[0, order] * vectors[1, order])[-1], expected[0, 1])
    assert np.array_equal(on_grid(vectors), vectors) and vectors.dtype == np.float32
    assert np.abs(expected - units(200, 384) @ units(200, 384).T).max() < 0.01
