"""Pairs of vectors within a cosine: exact for as many as a machine compares in seconds, approximate past that.

Exact: blocks of the matrix of all cosines, by matrix products. Approximate: an HNSW graph (Malkov and Yashunin 2018;
usearch) proposes each vector's nearest ones, and the exact cosine decides, so that a proposed pair is never wrong and
only one in `docs/data.md`'s share is missed. A vector with more than `NEAREST` neighbours within the cosine shows the
nearest of them; deduplication drops all but one of such a cloud anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BLOCK = 2048  # rows of the matrix of cosines at once: 16 MB of float32
NEAREST = 16


def similar_pairs(vectors: np.ndarray, threshold: float, approximate_from: int) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows whose cosine is at least `threshold`.

    Args:
        vectors: unit vectors, float32 or float16 of shape (rows, dimensions).
        threshold: cosine.
        approximate_from: number of rows from which neighbours are searched approximately.

    Returns:
        Pairs, int64 of shape (pairs, 2), the lower row first, sorted; their cosines, float32 of shape (pairs,).
    """
    import numpy as np

    if len(vectors) < 2:
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    search = _approximate if len(vectors) >= approximate_from else _exact
    pairs, cosine = search(vectors, threshold)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], cosine[order]


def pair_cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows, float32 of shape (pairs,)."""
    import numpy as np

    result = np.empty(len(pairs), dtype=np.float32)
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        left, right = vectors[block[:, 0]].astype(np.float32), vectors[block[:, 1]].astype(np.float32)
        result[start : start + BLOCK] = np.einsum("ij,ij->i", left, right)
    return result


def _exact(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
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
    return np.concatenate(pairs), np.concatenate(values)


def _approximate(vectors: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    import numpy as np
    from usearch.index import Index

    index = Index(
        ndim=vectors.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=64, expansion_search=64
    )
    # Threads would make the graph depend on their timing, and the stage's output may not.
    index.add(np.arange(len(vectors)), vectors, threads=1)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(vectors), BLOCK):
        rows = vectors[start : start + BLOCK]
        matches = index.search(rows, min(NEAREST + 1, len(vectors)), threads=1)
        close = 1.0 - matches.distances >= threshold - 0.01  # float16 rounds
        left = np.repeat(np.arange(start, start + len(rows)), close.sum(axis=1))
        found.append(np.sort(np.stack([left, matches.keys[close].astype(np.int64)], axis=1), axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    cosine = pair_cosines(vectors, pairs)
    return pairs[cosine >= threshold], cosine[cosine >= threshold]
