"""Near duplicates of texts, by the Jaccard similarity of their character shingles.

Characters, not words, so that Chinese and other writing without spaces works alike. MinHash LSH (Broder 1997;
datasketch) proposes pairs and the exact similarity decides, so the threshold means what it says. Candidates are
proposed from a similarity well below the threshold, which makes a missed pair unlikely: with 128 permutations,
fewer than one in a thousand at the threshold itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

PROPOSE_FROM = 0.6  # of the threshold


def normalise(text: str) -> str:
    """A text as it is compared: compatibility forms and case folded, punctuation and space runs made one space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[\W_]+", " ", folded).strip()


def shingles(text: str, size: int) -> frozenset[str]:
    """All runs of `size` characters of the normalised text; a shorter text is one shingle."""
    clean = normalise(text)
    if len(clean) <= size:
        return frozenset([clean])
    return frozenset(clean[start : start + size] for start in range(len(clean) - size + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(left & right) / len(left | right)


class NearIndex:
    """Finds the indexed texts that are similar to a text.

    Args:
        threshold: Jaccard similarity from which texts count as near.
        shingle: characters a shingle.
        permutations: of the MinHash.
    """

    def __init__(self, threshold: float, shingle: int, permutations: int = 128) -> None:
        from datasketch import MinHashLSH

        self.threshold, self.shingle, self.permutations = threshold, shingle, permutations
        self._lsh = MinHashLSH(threshold=threshold * PROPOSE_FROM, num_perm=permutations)
        self._shingles: list[frozenset[str]] = []

    def add(self, text: str) -> int:
        """Index a text; returns its number, counted from 0."""
        number, grams = len(self._shingles), shingles(text, self.shingle)
        self._shingles.append(grams)
        self._lsh.insert(number, self._minhash(grams))
        return number

    def near(self, text: str) -> list[tuple[int, float]]:
        """Numbers and similarities of the indexed texts at or above the threshold, nearest first."""
        grams = shingles(text, self.shingle)
        proposed = self._lsh.query(self._minhash(grams))
        scored = [(number, jaccard(grams, self._shingles[number])) for number in proposed]
        return sorted((pair for pair in scored if pair[1] >= self.threshold), key=lambda pair: (-pair[1], pair[0]))

    def _minhash(self, grams: frozenset[str]) -> object:
        from datasketch import MinHash

        # The shingles are a set, whose order differs from process to process; a MinHash does not depend on it.
        minhash = MinHash(num_perm=self.permutations, seed=1)
        minhash.update_batch([gram.encode() for gram in grams])
        return minhash


def duplicate_groups(texts: Sequence[str], threshold: float, shingle: int, permutations: int = 128) -> list[int]:
    """Group near duplicates transitively; returns for each text the number of the first text of its group."""
    index, parent = NearIndex(threshold, shingle, permutations), list(range(len(texts)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for number, text in enumerate(texts):
        for other, _ in index.near(text):
            left, right = sorted((root(number), root(other)))
            parent[right] = left
        index.add(text)
    return [root(number) for number in range(len(texts))]
