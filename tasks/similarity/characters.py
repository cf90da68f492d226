"""Text vectors without a model: latent semantic analysis of character n-grams, for languages no embedder here knows.

Counts of runs of one and two normalised characters (hashed, Weinberger et al. 2009), damped to 1 + log(count), weighted
by inverse document frequency, and reduced by a truncated singular value decomposition (Deerwester et al. 1990; Halko et
al. 2011) fitted on the texts of the run. It needs neither words nor spaces nor training data, and sees shared wording
and what goes with it, not meaning: docs/data.md has how many paraphrases it finds and how many a real model does.

Limit: fitted on the first `FIT` different texts in order of hash. Vectors of two fits are not comparable.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tasks.similarity.near import normalise

if TYPE_CHECKING:
    import numpy as np

DIMENSIONS = 128
TEXTS_A_DIMENSION = 4  # or a small corpus has an axis for every text, and no two texts are alike
FEATURES = 1 << 16
FIT = 20_000


class CharacterModel:
    """Fitted on a corpus; then a function from texts to unit vectors, float64 of shape (texts, dimensions)."""

    def __init__(self, corpus: Iterable[str]) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        texts = _sample(corpus, FIT)
        self._hashing = HashingVectorizer(
            analyzer="char",
            ngram_range=(1, 2),
            n_features=FEATURES,
            preprocessor=normalise,
            alternate_sign=False,
            norm=None,
        )
        counts = self._hashing.transform(texts)
        self._weights = TfidfTransformer(sublinear_tf=True).fit(counts)
        self.dimensions = max(1, min(DIMENSIONS, len(texts) // TEXTS_A_DIMENSION))
        self._axes = TruncatedSVD(self.dimensions, random_state=0).fit(self._weights.transform(counts))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors; a text that shares nothing with the corpus is the first axis."""
        import numpy as np

        vectors: np.ndarray = self._axes.transform(self._weights.transform(self._hashing.transform(texts)))
        vectors[~vectors.any(axis=1), 0] = 1.0
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _sample(texts: Iterable[str], count: int) -> list[str]:
    """At most `count` different texts, the lowest by hash, in that order: the same ones in whatever order they come."""
    digests = {hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest(): text for text in texts}
    return [digests[digest] for digest in heapq.nsmallest(count, digests)]
