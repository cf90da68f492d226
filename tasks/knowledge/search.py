"""Search in the domain's passages: by meaning and by words, fused; exact, in memory, the same on every processor.

An index is a folder: passages.parquet, embeddings.parquet (unit vectors on a grid, of each passage with its question),
retrieval.json (how it is searched) and, where it was tuned, the embedder. Scores are cosines plus `LEXICAL` times the
BM25 score (Robertson and Zaragoza 2009) over the best one. Limits: all vectors are in memory, 1.5 KB a passage; at
10,000 passages a search takes about a millisecond beside the embedding of the question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.errors import FlywheelError
from tasks.core.records import Passage, Record, RecordError
from tasks.core.tables import read_batches, records_of
from tasks.knowledge.words import words_of
from tasks.similarity.embedder import Encode, read_embeddings, sentence_encoder

PASSAGES, EMBEDDINGS, SETTINGS, EMBEDDER = "passages.parquet", "embeddings.parquet", "retrieval.json", "embedder"
LEXICAL = 0.1


class IndexUnreadable(FlywheelError):
    """A folder holds no index, or a part of it is missing."""


class RetrievalSettings(Record):
    """How an index is searched, and in which language it is answered from; part of the version.

    `k` passages of `tokens` together at most; none where the best one's score is below `threshold`.
    """

    k: int
    tokens: int
    threshold: float
    language: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and its score."""

    passage: Passage
    score: float


class Knowledge:
    """An index, open for searching; safe for threads once `warm` has run."""

    def __init__(self, folder: Path, count: Callable[[str], int]) -> None:
        """Open the index in `folder`; `count` tells the tokens of a text. Raises IndexUnreadable."""
        path = folder / SETTINGS
        try:
            self.settings = RetrievalSettings.model_validate_json(path.read_text(encoding="utf-8"))
            self.passages = [one for table in read_batches(folder / PASSAGES) for one in records_of(table, Passage)]
        except (OSError, ValueError, RecordError) as error:
            raise _unreadable(folder, error) from None
        self.folder = folder
        self.count = count

    @cached_property
    def _encode(self) -> Encode | None:
        """The embedder; None where the index is searched by words alone."""
        folder = self.folder / EMBEDDER
        return sentence_encoder(folder, batch_size=32, threads=1) if folder.is_dir() else None

    @cached_property
    def _vectors(self) -> np.ndarray:
        try:
            return read_embeddings(self.folder / EMBEDDINGS).whole
        except RecordError as error:
            raise _unreadable(self.folder, error) from None

    @cached_property
    def _by_id(self) -> np.ndarray:
        """The place of each passage in the order of ids, by which equal scores go: no order of rows decides."""
        return np.argsort(np.argsort([passage.id for passage in self.passages]))

    @cached_property
    def _lexicon(self) -> Any:
        import bm25s

        lexicon = bm25s.BM25()
        lexicon.index([words_of(passage.whole) or [""] for passage in self.passages], show_progress=False)
        return lexicon

    def warm(self) -> None:
        """Load everything, so that the first question is not slower than the others."""
        self.search(["a"])

    def search(self, questions: Sequence[str], most: int = 0) -> list[list[Hit]]:
        """The best passages for each question, best first: `most` of them, or as many as the settings allow.

        With `most`, neither the threshold nor the budget of tokens cuts anything off.
        """
        if not self.passages or not questions:
            return [[] for _ in questions]
        scores = LEXICAL * np.stack([self._lexical(question) for question in questions])
        if self._encode is not None:
            scores += self._encode(questions) @ self._vectors.T
        return [self._hits(row, most) for row in scores]

    def _lexical(self, question: str) -> np.ndarray:
        """BM25 over the best passage's, float32 (passages,)."""
        known = [word for word in words_of(question) if word in self._lexicon.vocab_dict]
        if not known:
            return np.zeros(len(self.passages), np.float32)
        scores = self._lexicon.get_scores(known)
        return scores / max(float(scores.max()), 1e-6)

    def _hits(self, scores: np.ndarray, most: int) -> list[Hit]:
        rounded = np.round(scores, 6)
        order = np.lexsort((self._by_id, -rounded))[: most or self.settings.k]
        hits = [Hit(self.passages[row], round(float(rounded[row]), 6)) for row in order]
        if most:
            return hits
        # Without an embedder the best passage always scores the same: any shared word is enough then.
        least = 0.0 if self._encode is None else self.settings.threshold
        hits = [hit for hit in hits if hit.score > 0.0]
        if not hits or hits[0].score < least:
            return []
        return hits[: len(self.fitting([hit.passage for hit in hits], self.settings.tokens))]

    def fitting(self, passages: Sequence[Passage], tokens: int) -> list[Passage]:
        """The first passages that have at most so many tokens together."""
        kept = []
        for passage in passages:
            tokens -= self.count(passage.whole)
            if tokens < 0:
                break
            kept.append(passage)
        return kept


def _unreadable(folder: Path, error: Exception) -> IndexUnreadable:
    return IndexUnreadable(f"{folder} holds no index ({error}); run the stage index again")
