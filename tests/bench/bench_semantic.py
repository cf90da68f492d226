"""Semantic duplicates: our pairs against SemHash on the same vectors, in one run, with how cost grows.

Run by `make bench`. Unit vectors of 384 dimensions in clouds of topics, one in ten a copy at a cosine of 0.87 to 1. The
truth is every pair at or above 0.85, by comparing all with all. Up to `approximate_from` rows ours is
exact; past it both search an HNSW graph of usearch.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.similarity.neighbours import _exact, similar_pairs

THRESHOLD, DIMENSIONS, APPROXIMATE_FROM = 0.85, 384, 20_000
SIZES = (7_500, 15_000, 30_000)


def vectors_of(count: int) -> np.ndarray:
    """Unit vectors, float32 of shape (count, 384)."""
    generator = np.random.default_rng(count)
    topics = generator.normal(size=(count // 50, DIMENSIONS))
    rows = topics[generator.integers(len(topics), size=count)] + generator.normal(size=(count, DIMENSIONS))
    copies = np.arange(9, count, 10)
    noise = generator.uniform(0.0, 0.55, size=(len(copies), 1)) * generator.normal(size=(len(copies), DIMENSIONS))
    rows[copies] = rows[copies - generator.integers(1, 9, size=len(copies))] + 1.4 * noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


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
    for column in ("rows", "true pairs", "ours, s", "SemHash, s", "times faster", "our recall", "SemHash's recall"):
        table.add_column(column, justify="right")
    for count in SIZES:
        vectors = vectors_of(count)
        truth = {tuple(pair) for pair in _exact(vectors, THRESHOLD)[0].tolist()}
        start = time.perf_counter()
        found = similar_pairs(vectors, THRESHOLD, APPROXIMATE_FROM)[0]
        our = time.perf_counter() - start
        start = time.perf_counter()
        peer_found = semhash_pairs(vectors)
        peer = time.perf_counter() - start
        recall = len(truth & {tuple(pair) for pair in found.tolist()}) / len(truth)
        peer_recall = len(truth & peer_found) / len(truth)
        table.add_row(
            f"{count}",
            f"{len(truth)}",
            f"{our:.2f}",
            f"{peer:.2f}",
            f"{peer / our:.1f}",
            f"{recall:.4f}",
            f"{peer_recall:.4f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
