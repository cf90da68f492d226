"""Search in the domain's passages: by meaning and by words, fused; exact, in memory, the same on every processor.

An index is a folder: passages.parquet, embeddings.parquet (unit vectors on a grid, of each passage with its question),
retrieval.json (how it is searched) and, where it was tuned, the embedder. Scores are cosines plus `LEXICAL` times the
BM25 score (Robertson and Zaragoza 2009) over the best one. Limits: all vectors are in memory, 1.5 KB a passage; at
10,000 passages a search takes about a millisecond beside the embedding of the question.

Corrections that are not in the index yet may be searched beside it (corrections.py): one of them stands alone, or is
not found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import FlywheelError
from tasks.core.records import Passage, Record, RecordError
from tasks.core.tables import read_batches, records_of
from tasks.knowledge.corrections import CORRECTION, Corrections
from tasks.knowledge.words import words_of
from tasks.similarity.embedder import Embeddings, Encoders, load_sentence_model, model_encoders, read_embeddings
from tasks.text.passages import AnsweringWords, answering_words

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PASSAGES, EMBEDDINGS, SETTINGS, EMBEDDER = "passages.parquet", "embeddings.parquet", "retrieval.json", "embedder"
LEXICAL = 0.1
NEAR = 0.5  # cosine of two questions below which no other wording of the same one was seen; 0.52 was the least


class IndexUnreadable(FlywheelError):
    """A folder holds no index, or a part of it is missing."""


class RetrievalSettings(Record):
    """How an index is searched, and in which language it is answered from; part of the version.

    `k` passages of `tokens` together at most; none where the best one's score is below `threshold`, and beside it only
    those that score at most `margin` less. In another wording of a question every word is met with a cosine of `word`;
    with 1 only the same words are the same question.
    """

    k: int
    tokens: int
    threshold: float
    margin: float | None = None  # None, as in an index made before there was one: all of them are shown
    language: str
    word: float = 1.0
    own_words: AnsweringWords | None = None  # the domain's, where it brings some

    @property
    def words(self) -> AnsweringWords:
        """What stands around passages."""
        return self.own_words or answering_words(self.language)


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
        self._sources = {one.source for one in self.passages}
        self._corrections = [row for row, one in enumerate(self.passages) if one.kind == "correction"]

    @cached_property
    def _model(self) -> SentenceTransformer | None:
        """The embedder; None where the index is searched by words alone."""
        import torch

        folder = self.folder / EMBEDDER
        if not folder.is_dir():
            return None
        torch.set_num_threads(1)
        return load_sentence_model(folder)

    @cached_property
    def _encode(self) -> Encoders | None:
        return model_encoders(self._model, batch_size=32) if self._model is not None else None

    @cached_property
    def _embeddings(self) -> Embeddings:
        try:
            return read_embeddings(self.folder / EMBEDDINGS)
        except RecordError as error:
            raise _unreadable(self.folder, error) from None

    @cached_property
    def _beside(self) -> Corrections:
        return Corrections(self._model, self._encode, self.settings.word)

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

    def search(
        self,
        questions: Sequence[str],
        most: int = 0,
        beside: Sequence[Passage] = (),
        withdrawn: Collection[str] = (),
    ) -> list[list[Hit]]:
        """The best passages for each question, best first: `most` of them, or as many as the settings allow.

        With `most`, neither the threshold nor the budget of tokens cuts anything off. `beside` are corrections that
        count as well, the newest first; passages whose source is among `withdrawn` are not found.
        """
        beside = [one for one in beside if one.source not in self._sources]
        if not questions or not (self.passages or beside):
            return [[] for _ in questions]
        asked = None if self._encode is None else self._encode.question(questions)
        scores = self._scores(questions, asked)
        if withdrawn:
            scores[:, [row for row, one in enumerate(self.passages) if one.source in withdrawn]] = -np.inf
        least = np.maximum(scores.max(axis=1, initial=-np.inf), self._least)
        hits = []
        for place, question in enumerate(questions):
            vector = None if asked is None else asked[place]
            found = self._beside.asking(question, vector, float(least[place]), beside)
            hits.append(self._hits(scores[place], most, Hit(*found) if found else None))
        return hits

    @property
    def _least(self) -> float:
        # Without an embedder the best passage always scores the same: any shared word is enough then.
        return 0.0 if self._encode is None else self.settings.threshold

    def _scores(self, questions: Sequence[str], asked: np.ndarray | None) -> np.ndarray:
        """(questions, passages); `asked` are the questions' vectors."""
        if not self.passages:
            return np.zeros((len(questions), 0), np.float32)
        scores = LEXICAL * np.stack([self._lexical(question) for question in questions])
        if asked is not None:
            rows = self._corrections
            near = asked @ self._embeddings.question[rows].T >= NEAR
            scores[:, rows] = np.where(near, np.float32(CORRECTION), scores[:, rows])
            scores += asked @ self._embeddings.whole.T
        return scores

    def _lexical(self, question: str) -> np.ndarray:
        """BM25 over the best passage's, float32 (passages,)."""
        known = [word for word in words_of(question) if word in self._lexicon.vocab_dict]
        if not known:
            return np.zeros(len(self.passages), np.float32)
        scores = self._lexicon.get_scores(known)
        return scores / max(float(scores.max()), 1e-6)

    def _hits(self, scores: np.ndarray, most: int, first: Hit | None) -> list[Hit]:
        rounded = np.round(scores, 6)
        order = np.lexsort((self._by_id, -rounded))[: most or self.settings.k]
        hits = [Hit(self.passages[row], round(float(rounded[row]), 6)) for row in order if np.isfinite(rounded[row])]
        if first is not None and self.fitting([first.passage], self.settings.tokens):
            # It asks this very question: what else was found could only distract from it, or is what it corrects.
            return [first, *hits][:most] if most else [first]
        if most:
            return hits[:most]
        hits = [hit for hit in hits if hit.score > 0.0][: self.settings.k]
        if not hits or hits[0].score < self._least:
            return []
        hits = self.close(hits)
        return hits[: len(self.fitting([hit.passage for hit in hits], self.settings.tokens))]

    def close(self, hits: Sequence[Hit]) -> list[Hit]:
        """Those of the best hits that score little less than the first: among them search is not sure."""
        margin = self.settings.margin
        return [hit for hit in hits if margin is None or hits[0].score - hit.score <= margin]

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
