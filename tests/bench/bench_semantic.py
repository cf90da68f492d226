"""Semantic duplicates: our pairs against SemHash on the same vectors, in one run, with how cost grows.

Run by `make bench`. Unit vectors of 384 dimensions in clouds of topics, one in ten a copy at a cosine of 0.87 to 1. The
truth is every pair at or above 0.85, which ours finds by comparing all with all; SemHash searches an HNSW graph of
usearch. With `--large` 60,000 and 100,000 rows as well.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.similarity.neighbours import on_grid, similar_pairs

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


def main() -> None:
    """Print the table."""
    table = Table(title=f"Semantic duplicates at a cosine of {THRESHOLD}")
    for column in ("rows", "pairs", "ours, s", "SemHash, s", "times faster", "SemHash's recall"):
        table.add_column(column, justify="right")
    for count in SIZES + LARGE * ("--large" in sys.argv):
        vectors = vectors_of(count)
        start = time.perf_counter()
        truth = {tuple(pair) for pair in similar_pairs(vectors, THRESHOLD)[0].tolist()}
        our = time.perf_counter() - start
        start = time.perf_counter()
        peer_found = semhash_pairs(vectors)
        peer = time.perf_counter() - start
        cells = f"{len(truth):,}", f"{our:.2f}", f"{peer:.2f}", f"{peer / our:.1f}"
        table.add_row(f"{count:,}", *cells, f"{len(truth & peer_found) / len(truth):.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
