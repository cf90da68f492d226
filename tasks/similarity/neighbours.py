"""Unit vectors on a grid, and the pairs of them within a cosine: all with all, by blocks of matrix products.

On a grid of 1/256 a product of two components is a multiple of 2^-16 and a sum of them below 2^8, which float32 holds
exactly: cosines are the same on every processor. It moves a cosine by some 0.002. Limit: work grows with rows squared.
"""

from __future__ import annotations

import numpy as np

GRID = 256
BLOCK = 2048  # rows of the matrix of cosines at once: 16 MB of float32


def on_grid(vectors: np.ndarray) -> np.ndarray:
    """The nearest points of the grid, float32 of the same shape; vectors on it come back as they are."""
    return (np.rint(vectors * GRID) / GRID).astype(np.float32)


def similar_pairs(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows whose cosine is at least `threshold`, of unit vectors on the grid, float32 (rows, dimensions).

    Returns int64 (pairs, 2), the lower row first, sorted, and their cosines, float32 (pairs,).
    """
    pairs, values = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        for other in range(start, len(vectors), BLOCK):
            cosine = rows @ vectors[other : other + BLOCK].T
            left, right = np.divmod(np.flatnonzero(cosine >= threshold), cosine.shape[1])
            upper = left + start < right + other
            left, right = left[upper], right[upper]
            pairs.append(np.stack([left + start, right + other], axis=1))
            values.append(cosine[left, right])
    found, cosines = np.concatenate(pairs), np.concatenate(values)
    order = np.lexsort((found[:, 1], found[:, 0]))
    return found[order], cosines[order]


def pair_cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows, float32 of shape (pairs,)."""
    blocks = np.array_split(pairs, -(-len(pairs) // BLOCK) or 1)
    return np.concatenate([np.einsum("ij,ij->i", vectors[block[:, 0]], vectors[block[:, 1]]) for block in blocks])
