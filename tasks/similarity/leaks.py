"""The leak guard: no example that resembles an evaluation item may be trained on, replay and corrections included.

An example leaks when its question, or its question and answer together, is near that of an item by shared character
shingles (near.py), or within a stated cosine of it by its embedding (embed.py). Where there are earlier turns, its last
exchange is judged alone as well: behind two turns 40 of 42 reworded items passed, and alone none does. The guard is
strict where deduplication is careful: a lost training example costs little, a leaked item makes the verdict worthless.
The cosine is that of question and answer together; of the questions alone it has to be `SLACK` higher.

Limit: a paraphrase beyond the stated cosine passes; docs/data.md has how many do, per embedder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.params import Params
from tasks.core.records import EvaluationItem, Example
from tasks.similarity.embedder import (
    SLACK,
    Embeddings,
    cosines,
    evaluation_items,
    last_exchanges,
    question_text,
    read_embeddings,
    whole_text,
)
from tasks.similarity.near import NearIndex, similarities

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Leak:
    """The evaluation item that an example resembles most, and how: Jaccard similarity (near) or cosine (semantic)."""

    item: EvaluationItem
    how: Literal["near", "semantic"]
    score: float

    @property
    def reason(self) -> str:
        """For a receipt."""
        words = "resembles" if self.how == "near" else "means the same as"
        return f"{words} an evaluation item ({self.item.set})"


@dataclass(frozen=True)
class LeakThresholds:
    """At which similarity an example leaks: Jaccard of `shingle` characters, or cosine."""

    near: float
    semantic: float
    shingle: int
    permutations: int = 128


class LeakGuard:
    """Knows the evaluation items, and says of examples which of them they resemble.

    Args:
        items: all evaluation items.
        embeddings: of the items, by their ids.
        thresholds: from where on an example leaks.
    """

    def __init__(self, items: Sequence[EvaluationItem], embeddings: Embeddings, thresholds: LeakThresholds) -> None:
        self.items, self.thresholds = list(items), thresholds
        self._prompts = [item.prompt for item in self.items]
        self._wholes = [item.whole for item in self.items]
        self._vectors = embeddings.rows([item.id for item in self.items])
        self._near_prompts, self._near_wholes = self._index(self._prompts), self._index(self._wholes)

    def check(self, examples: Sequence[Example], embeddings: Embeddings) -> list[Leak | None]:
        """For each example the item it leaks, or None; `embeddings` holds theirs and their last exchanges', by id.

        Raises:
            EmbeddingError: an example, or the last exchange of one, has no embedding.
        """
        best = self._check_each(examples, embeddings)
        places = [place for place, example in enumerate(examples) for _ in last_exchanges(example)]
        alone = [last for example in examples for last in last_exchanges(example)]
        for place, leak in zip(places, self._check_each(alone, embeddings) if alone else (), strict=True):
            if leak:
                _note(best, place, leak)
        return best

    def _check_each(self, examples: Sequence[Example], embeddings: Embeddings) -> list[Leak | None]:
        best: list[Leak | None] = [None] * len(examples)
        question, whole = embeddings.rows([example.id for example in examples])
        self._note_semantic(best, question, self._vectors[0], self.thresholds.semantic + SLACK)
        self._note_semantic(best, whole, self._vectors[1], self.thresholds.semantic)
        self._note_near(best, [question_text(e) for e in examples], self._near_prompts, self._prompts)
        self._note_near(best, [whole_text(e) for e in examples], self._near_wholes, self._wholes)
        return best

    def _index(self, texts: Sequence[str]) -> NearIndex:
        index = NearIndex(self.thresholds.near, self.thresholds.shingle, self.thresholds.permutations)
        index.add(texts)
        return index

    def _note_semantic(self, best: list[Leak | None], vectors: np.ndarray, items: np.ndarray, threshold: float) -> None:
        if not self.items or not len(vectors):
            return
        cosines = vectors @ items.T
        closest = cosines.argmax(axis=1)
        for place, number in enumerate(closest):
            score = float(cosines[place, number])
            if score >= threshold:
                _note(best, place, Leak(self.items[int(number)], "semantic", round(score, 6)))

    def _note_near(self, best: list[Leak | None], texts: Sequence[str], index: NearIndex, items: Sequence[str]) -> None:
        pairs = index.matches(texts)
        for (place, number), score in zip(
            pairs, similarities(pairs, texts, items, self.thresholds.shingle), strict=True
        ):
            if score >= self.thresholds.near:
                _note(best, int(place), Leak(self.items[int(number)], "near", round(float(score), 6)))


def _note(best: list[Leak | None], place: int, leak: Leak) -> None:
    """Shared characters say more than a cosine; of one kind the higher score, then the lower id, is told."""
    known = best[place]
    rank = (leak.how == "near", leak.score, leak.item.id)
    if known is None or rank > (known.how == "near", known.score, known.item.id):
        best[place] = leak


def leak_guard(params: Params, domain: Domain) -> LeakGuard:
    """The guard of this run: the frozen items, their embeddings from stage `embed`, and the settings.

    Raises:
        RecordError: a file of an earlier stage is missing or damaged.
    """
    thresholds = LeakThresholds(
        near=params.mix.leak_threshold,
        semantic=params.mix.leak_semantic_threshold or cosines(domain).leak,
        shingle=params.dedup.shingle,
        permutations=params.dedup.permutations,
    )
    return LeakGuard(evaluation_items(), read_embeddings(layout.EMBED / "evaluation.parquet"), thresholds)
