"""Semantic duplicates: our pairs against SemHash on the same vectors, in one run, with how cost grows.

Run by `make bench`. Unit vectors of 384 dimensions in clouds of topics, one in ten a copy at a cosine of 0.87 to 1. The
truth is every pair at or above 0.85, which ours finds by comparing all with all; SemHash searches an HNSW graph of
usearch. With `--large` 60,000 and 100,000 rows as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.similarity.neighbours import on_grid, similar_pairs
from tests.bench.table import options, show, timed

THRESHOLD, DIMENSIONS = 0.85, 384
SIZES = (7_500, 15_000, 30_000)
LARGE = (60_000, 100_000)


def vectors_of(count: int) -> np.ndarray:
    """Unit vectors on the grid, float32 of shape (count, 384)."""
    generator = np.random.default_rng(count)
    topics = generator.normal(size=(count // 50, DIMENSIONS))
    rows = topics[generator.integers(len(topics), size=count)] + generator.normal(size=(count, DIMENSIONS))
    copies = np.arange(9, count, 10)
    noise = generator.uniform(0.0, 0.55, size=(len(copies), 1)) * generator.normal(size=(len(copies), DIMENSIONS))
    rows[copies] = rows[copies - generator.integers(1, 9, size=len(copies))] + 1.4 * noise
    return on_grid(rows / np.linalg.norm(rows, axis=1, keepdims=True))


class NoModel:
    """SemHash asks for a model even where the vectors are given."""

    def encode(self, *_: Any, **__: Any) -> np.ndarray:
        """Never called."""
        raise AssertionError


def semhash_pairs(vectors: np.ndarray) -> set[tuple[int, int]]:
    """The pairs that SemHash's index returns at the threshold: what its deduplication is made from."""
    from semhash import SemHash

    records = [str(row) for row in range(len(vectors))]
    index = SemHash.from_embeddings(embeddings=vectors, records=records, model=NoModel()).index
    found = index.query_threshold(index.vectors, threshold=THRESHOLD)
    return {
        (min(row, int(other)), max(row, int(other)))
        for row, (others, _) in enumerate(found)
        for other in others
        if row != other
    }


def row_of(count: int) -> tuple[str, ...]:
    """One row of the table."""
    vectors = vectors_of(count)
    our, pairs = timed(lambda: similar_pairs(vectors, THRESHOLD)[0].tolist())
    peer, found = timed(lambda: semhash_pairs(vectors))
    truth = {tuple(pair) for pair in pairs}
    speeds = f"{our:.2f}", f"{peer:.2f}", f"{peer / our:.1f}"
    return f"{count:,}", f"{len(truth):,}", *speeds, f"{len(truth & found) / len(truth):.4f}"


def main() -> None:
    """Print the table."""
    columns = "rows | pairs | ours, s | SemHash, s | times faster | SemHash's recall"
    sizes = SIZES + LARGE * options(__doc__, large=False).large
    show(f"Semantic duplicates at a cosine of {THRESHOLD}", columns, map(row_of, sizes))


if __name__ == "__main__":
    main()
