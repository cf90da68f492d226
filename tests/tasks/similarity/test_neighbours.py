"""Pairs of vectors within a cosine, exact and approximate."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.similarity import neighbours
from tasks.similarity.neighbours import pair_cosines, similar_pairs


def clouds(rows: int, dimensions: int = 64) -> np.ndarray:
    """Unit vectors in pairs: each even row and the one after it are some 0.95 alike, all others near 0."""
    generator = np.random.default_rng(5)
    centres = generator.normal(size=(rows // 2, dimensions))
    vectors = np.repeat(centres, 2, axis=0) + 0.22 * generator.normal(size=(rows, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_pair_at_the_cosine_counts_and_one_below_it_does_not() -> None:
    """Cosines 0.8 (rows 0 and 1), 0.6 (1 and 2) and 0 (0 and 2)."""
    vectors = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
    pairs, cosines = similar_pairs(vectors, 0.8, 100)
    assert pairs.tolist() == [[0, 1]] and cosines == pytest.approx([0.8])
    assert similar_pairs(vectors, 0.6, 100)[0].tolist() == [[0, 1], [1, 2]]


def test_blocks_leave_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clouds(102)
    whole = similar_pairs(vectors, 0.3, 1000)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    parts = similar_pairs(vectors, 0.3, 1000)
    assert parts[0].tolist() == whole[0].tolist() and np.allclose(parts[1], whole[1])


def test_the_approximate_way_finds_what_the_exact_one_finds_and_nothing_wrong() -> None:
    vectors = clouds(3000)
    exact, approximate = (similar_pairs(vectors, 0.85, start)[0].tolist() for start in (10_000, 10))
    assert len(exact) == 1500
    assert {tuple(pair) for pair in approximate} <= {tuple(pair) for pair in exact}
    assert len(approximate) >= 0.99 * len(exact)


def test_half_precision_and_no_rows_will_do() -> None:
    vectors = clouds(40)
    assert (
        similar_pairs(vectors.astype(np.float16), 0.85, 100)[0].tolist()
        == similar_pairs(vectors, 0.85, 100)[0].tolist()
    )
    assert (
        len(similar_pairs(vectors[:1], 0.5, 1)[0]) == len(similar_pairs(np.empty((0, 3), np.float32), 0.5, 1)[0]) == 0
    )
    assert pair_cosines(vectors, np.array([[3, 3]])) == pytest.approx([1.0])
