"""The leak guard: no example that resembles an evaluation item may be trained on, replay and corrections included.

An example leaks when its question, or question and answer together, is near an item's by shared shingles (near.py), or
within a stated cosine (for questions alone `SLACK` higher); behind earlier turns its last exchange is judged alone too.
Strict: a lost example costs little, a leaked item makes the verdict worthless. docs/data.md has what still passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
from tasks.similarity.near import matches


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


class LeakGuard:
    """Knows the evaluation items, and their embeddings by id; says of examples which of them they resemble."""

    def __init__(self, items: Sequence[EvaluationItem], embeddings: Embeddings, thresholds: LeakThresholds) -> None:
        self.items, self.thresholds = list(items), thresholds
        self._texts = [item.prompt for item in self.items], [item.whole for item in self.items]
        self._vectors = embeddings.rows([item.id for item in self.items])

    def check(self, examples: Sequence[Example], embeddings: Embeddings) -> list[Leak | None]:
        """For each example the item it leaks, or None; `embeddings` holds theirs and their last exchanges', by id.

        Raises EmbeddingError: an example, or the last exchange of one, has no embedding.
        """
        rows = [(place, one) for place, example in enumerate(examples) for one in (example, *last_exchanges(example))]
        vectors = embeddings.rows([one.id for _, one in rows])
        best: list[Leak | None] = [None] * len(examples)
        if not rows or not self.items:
            return best
        texts = [question_text(one) for _, one in rows], [whole_text(one) for _, one in rows]
        for part, slack in ((0, SLACK), (1, 0.0)):
            cosines = vectors[part] @ self._vectors[part].T
            closest, score = cosines.argmax(axis=1), cosines.max(axis=1)
            for row in (score >= self.thresholds.semantic + slack).nonzero()[0]:
                leak = Leak(self.items[closest[row]], "semantic", round(float(score[row]), 6))
                _note(best, rows[row][0], leak)
            pairs, scores = matches(texts[part], self._texts[part], self.thresholds.near, self.thresholds.shingle)
            for (row, number), similarity in zip(pairs, scores, strict=True):
                _note(best, rows[row][0], Leak(self.items[number], "near", round(float(similarity), 6)))
        return best


def _note(best: list[Leak | None], place: int, leak: Leak) -> None:
    """Shared characters say more than a cosine; of one kind the higher score, then the lower id, is told."""
    known = best[place]
    rank = (leak.how == "near", leak.score, leak.item.id)
    if known is None or rank > (known.how == "near", known.score, known.item.id):
        best[place] = leak


def leak_guard(params: Params, domain: Domain) -> LeakGuard:
    """The guard of this run: the frozen items, their embeddings from stage `embed`, and the settings."""
    thresholds = LeakThresholds(
        near=params.mix.leak_threshold,
        semantic=params.mix.leak_semantic_threshold or cosines(domain).leak,
        shingle=params.dedup.shingle,
    )
    return LeakGuard(evaluation_items(), read_embeddings(layout.EMBED / "evaluation.parquet"), thresholds)
