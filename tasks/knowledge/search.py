"""Search in the domain's passages: by meaning and by words, fused; exact, in memory, the same on every processor.

An index is a folder: passages.parquet, embeddings.parquet (unit vectors on a grid, of each passage with its question),
retrieval.json (how it is searched) and, where it was tuned, the embedder. Scores are cosines plus `LEXICAL` times the
BM25 score (Robertson and Zaragoza 2009) over the best one. Limits: all vectors are in memory, 1.5 KB a passage; at
10,000 passages a search takes about a millisecond beside the embedding of the question.

Corrections that are not in the index yet may be searched beside it. One of them stands alone, or is not found: it must
be the best of all and ask the same question, which a cosine cannot tell. ("Which paint does our office use for facade
samples?" is as near to "… for window samples?" as to the same question in other words.) So every word of one question
must be met by a word of the other, in context, with a cosine of `word`: the recall of BERTScore (Zhang et al. 2020),
with the worst word in place of the mean. docs/knowledge.md has what it finds and what it keeps out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks.core.errors import FlywheelError
from tasks.core.records import Passage, Record, RecordError
from tasks.core.tables import read_batches, records_of
from tasks.knowledge.words import words_of
from tasks.similarity.embedder import (
    Embeddings,
    Encoders,
    load_sentence_model,
    model_encoders,
    read_embeddings,
    word_vectors,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PASSAGES, EMBEDDINGS, SETTINGS, EMBEDDER = "passages.parquet", "embeddings.parquet", "retrieval.json", "embedder"
LEXICAL = 0.1
CORRECTION = 0.1  # of a correction of what is asked, in place of its words' score: it outranks older material
NEAR = 0.5  # cosine of two questions below which no other wording of the same one was seen; 0.52 was the least
CANDIDATES = 3
REMEMBERED = 1000  # corrections whose vectors are kept
BATCH = 16  # corrections that one search embeds at most


class IndexUnreadable(FlywheelError):
    """A folder holds no index, or a part of it is missing."""


class RetrievalSettings(Record):
    """How an index is searched, and in which language it is answered from; part of the version.

    `k` passages of `tokens` together at most; none where the best one's score is below `threshold`. In another wording
    of a question every word is met with a cosine of `word`; with 1 only the same words are the same question.
    """

    k: int
    tokens: int
    threshold: float
    language: str
    word: float = 1.0


class Remembered(NamedTuple):
    """A correction, with the vector of its whole, as the index has its passages', and those of its question's words."""

    correction: Passage
    whole: np.ndarray
    words: np.ndarray


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
        self._remembered: dict[str, Remembered] = {}
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

    @property
    def _vectors(self) -> np.ndarray:
        return self._embeddings.whole

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
        scores[:, [row for row in self._corrections if self.passages[row].source in withdrawn]] = -np.inf
        least = np.maximum(scores.max(axis=1, initial=-np.inf), self._least)
        first = [
            self._correction(question, None if asked is None else asked[place], float(least[place]), beside)
            for place, question in enumerate(questions)
        ]
        return [self._hits(row, most, one) for row, one in zip(scores, first, strict=True)]

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
            scores += asked @ self._vectors.T
        return scores

    def _correction(
        self, question: str, asked: np.ndarray | None, least: float, beside: Sequence[Passage]
    ) -> Hit | None:
        """The correction of this very question, if one scores `least`; asked in the same words it always does."""
        same = next((one for one in beside if _words(one.question) == _words(question)), None)
        if same is not None:
            return Hit(same, CORRECTION + (0.0 if asked is None else 1.0))
        known = self._remember(beside) if beside else []
        if asked is None or self._model is None or not known:
            return None
        cosines = np.stack([one.whole for one in known]) @ asked
        places = [int(one) for one in np.argsort(-cosines, kind="stable")[:CANDIDATES]]
        places = [place for place in places if cosines[place] + CORRECTION >= least]
        [words] = word_vectors(self._model, [question]) if places else [np.empty(0)]
        for place in places:
            met = words @ known[place].words.T
            # A question that says less than the corrected one may be the wider one, with an entry of its own.
            bonus = CORRECTION if met.max(axis=0, initial=0.0).min(initial=1.0) >= self.settings.word else 0.0
            part = met.max(axis=1, initial=0.0).min(initial=1.0) >= self.settings.word
            if (bonus or part) and cosines[place] + bonus >= least:
                return Hit(known[place].correction, round(float(cosines[place]) + bonus, 6))
        return None

    def _remember(self, corrections: Sequence[Passage]) -> list[Remembered]:
        """Those whose vectors are at hand, with `BATCH` new ones: after a restart no question waits for all of them."""
        known = self._remembered
        new = [one for one in corrections if one.id not in known][:BATCH]
        if new and self._encode is not None and self._model is not None:
            wholes = self._encode.passage([one.whole for one in new])
            words = word_vectors(self._model, [one.question for one in new])
            made = {one.id: Remembered(one, *vectors) for one, *vectors in zip(new, wholes, words, strict=True)}
            # A new dictionary: other threads read the one that there was.
            self._remembered = known = dict([*known.items()][-(REMEMBERED - BATCH) :]) | made
        return [known[one.id] for one in corrections if one.id in known]

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


@lru_cache(maxsize=REMEMBERED)
def _words(text: str) -> tuple[str, ...]:
    return tuple(words_of(text))


def _unreadable(folder: Path, error: Exception) -> IndexUnreadable:
    return IndexUnreadable(f"{folder} holds no index ({error}); run the stage index again")
