"""Whether a correction is one of what is asked: it has to be the best of all, and to ask the same question.

A cosine cannot tell whether two questions are the same. ("Which paint does our office use for facade samples?" is as
near to "… for window samples?" as to the same question in other words.) So every word of one question must be met by a
word of the other, in context, with a cosine of `word`: the recall of BERTScore (Zhang et al. 2020), with the worst word
in place of the mean. docs/knowledge.md has what it finds and what it keeps out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tasks.core.records import Passage
from tasks.knowledge.words import words_of
from tasks.similarity.embedder import Encoders, word_vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CORRECTION = 0.1  # of a correction of what is asked, in place of its words' score: it outranks older material
CANDIDATES = 3
REMEMBERED = 1000  # corrections whose vectors are kept
BATCH = 16  # corrections that one search embeds at most


class Remembered(NamedTuple):
    """A correction, with the vector of its whole, as an index has its passages', and those of its question's words."""

    correction: Passage
    whole: np.ndarray
    words: np.ndarray


class Corrections:
    """Finds the correction of a question, by the embedder of an index; safe for threads.

    Without one, and with a `word` of 1, only the same words are the same question.
    """

    def __init__(self, model: SentenceTransformer | None, encode: Encoders | None, word: float) -> None:
        self._model, self._encode, self._word = model, encode, word
        self._remembered: dict[str, Remembered] = {}

    def asking(
        self, question: str, asked: np.ndarray | None, least: float, corrections: Sequence[Passage]
    ) -> tuple[Passage, float] | None:
        """The correction of this very question with its score, if that is `least`; in the same words it always is.

        `asked` is the question's vector.
        """
        same = next((one for one in corrections if _words(one.question) == _words(question)), None)
        if same is not None:
            return same, CORRECTION + (0.0 if asked is None else 1.0)
        known = self._remember(corrections) if corrections else []
        if asked is None or self._model is None or not known:
            return None
        cosines = np.stack([one.whole for one in known]) @ asked
        places = [int(one) for one in np.argsort(-cosines, kind="stable")[:CANDIDATES]]
        places = [place for place in places if cosines[place] + CORRECTION >= least]
        [words] = word_vectors(self._model, [question]) if places else [np.empty(0)]
        for place in places:
            met = words @ known[place].words.T
            # A question that says less than the corrected one may be the wider one, with an entry of its own.
            bonus = CORRECTION if met.max(axis=0, initial=0.0).min(initial=1.0) >= self._word else 0.0
            part = met.max(axis=1, initial=0.0).min(initial=1.0) >= self._word
            if (bonus or part) and cosines[place] + bonus >= least:
                return known[place].correction, round(float(cosines[place]) + bonus, 6)
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


@lru_cache(maxsize=REMEMBERED)
def _words(text: str) -> tuple[str, ...]:
    return tuple(words_of(text))
