"""Vectors on the grid, and pairs of them within a cosine."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.similarity import neighbours
from tasks.similarity.neighbours import on_grid, pair_cosines, similar_pairs


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
