"""What an answer is worth, and what looking it up costs: right answers of five arms, and search beside a peer.

Run by `make bench`. The first table needs a release in this checkout (`make run`): the domain's questions, in other
words that nobody trained on, put to base and tuned model with and without passages, and to plain search. The second
searches passages of recombined sentences of the index; the peer is sentence-transformers' own search, by meaning only,
on the same vectors. Times are medians, on one thread, beside the embedding of the question.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from tasks.core import layout
from tasks.core.files import verify_manifest
from tasks.core.records import Passage, make_passage
from tasks.core.tables import table_writer, write_records
from tasks.evaluate.arms import compare_arms
from tasks.knowledge.search import EMBEDDER, EMBEDDINGS, PASSAGES, SETTINGS, Knowledge
from tasks.similarity.embedder import embeddings_table, read_embeddings, sentence_encoders
from tasks.similarity.neighbours import on_grid
from tests.bench.table import options, show

DIMENSIONS, QUESTIONS = 384, 50


def show_arms() -> None:
    """The table of right answers."""
    rows = []
    for arm in compare_arms([True, False]):
        right = f"{arm.right.estimate:.0%} ({arm.right.low:.0%} to {arm.right.high:.0%})"
        shares = (arm.two, arm.contradicted, arm.cited, arm.declined, arm.declined_unanswerable)
        rows.append((arm.name, arm.n, right, *("–" if share is None else f"{share:.0%}" for share in shares)))
    columns = "arm | questions | right (95%) | of two passages | contradicted | cited | declined | rightly declined"
    show("Answers of the default release", columns, rows)


def laid(folder: Path, count: int) -> Knowledge:
    """An index of so many passages of sentences of the real one, with vectors of noise."""
    real = Knowledge(layout.INDEX, len)
    sentences = [part for one in real.passages for part in one.text.split(". ")]
    draw, noise = random.Random(7), np.random.default_rng(7)
    texts = {". ".join(draw.sample(sentences, 3)) for _ in range(count)}
    passages = [make_passage(kind="document", text=one, source=f"{n}") for n, one in enumerate(sorted(texts))]
    vectors = noise.standard_normal((len(passages), DIMENSIONS), dtype=np.float32)
    vectors = on_grid(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    write_records(folder / PASSAGES, passages, Passage)
    table = embeddings_table(((one.id, one.text, one.whole) for one in passages), lambda batch: vectors[: len(batch)])
    with table_writer(folder / EMBEDDINGS, table.schema) as writer:
        writer.write(table)
    shutil.copy(layout.INDEX / SETTINGS, folder)
    shutil.copytree(layout.INDEX / EMBEDDER, folder / EMBEDDER)
    return Knowledge(folder, len)


def median_ms(work: Callable[[str], Any], questions: list[str]) -> float:
    """The median time of one call in milliseconds; the first one warms up."""
    times = []
    for question in questions:
        start = time.perf_counter()
        work(question)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:]) * 1000


def row_of(count: int, questions: list[str]) -> tuple[str, ...]:
    """One row of the table of times."""
    from sentence_transformers.util import semantic_search

    encode = sentence_encoders(layout.INDEX / EMBEDDER, batch_size=1, threads=1).question
    with tempfile.TemporaryDirectory() as scratch:
        knowledge = laid(Path(scratch), count)
        knowledge.warm()
        embedding = median_ms(lambda question: encode([question]), questions)
        both = median_ms(lambda question: knowledge.search([question]), questions)
        vectors = {question: encode([question]) for question in questions}
        corpus = read_embeddings(Path(scratch) / EMBEDDINGS).whole
        peer = median_ms(lambda question: semantic_search(vectors[question], corpus, top_k=3), questions)
    ours = both - embedding
    return f"{len(knowledge.passages):,}", f"{embedding:.1f}", f"{ours:.1f}", f"{peer:.1f}", f"{peer / ours:.1f}"


def main() -> None:
    """Print the tables."""
    asked = options(__doc__, sizes="10000,100000")
    verify_manifest(layout.INDEX)
    questions = [one.question for one in Knowledge(layout.INDEX, len).passages if one.question][:QUESTIONS]
    rows = [row_of(int(size), questions) for size in asked.sizes.split(",")]
    columns = "passages | question's embedding, ms | ours, by meaning and words, ms | peer, by meaning, ms | times"
    show("Search, one thread", columns, rows)
    if (layout.PACKAGE / "MANIFEST.json").is_file():
        show_arms()


if __name__ == "__main__":
    main()
