"""Near duplicates of texts, by the Jaccard similarity of their character shingles, in writing without spaces too.

MinHash signatures (Broder 1997; as Dahlgaard, Knudsen and Thorup 2017, computed by rensa) are cut into bands (Indyk and
Motwani 1998); texts that share one are proposed, a sketch of a byte a permutation (Li and König 2010) throws most out
that were in vain, and the exact similarity decides. Limits: a pair at the threshold is missed by fewer than one in a
thousand; in a bucket of more than `MOST` texts each is compared with the first `MOST` only. Some 400 bytes a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MISS = 1e-3  # probability with which a pair at the threshold may go unseen
MOST = 32  # texts of one bucket that each other one is compared with
BATCH = 4096  # texts compared at once
HASHED = 128  # texts hashed at once: their shingles stay in the processor's cache
DEVIATIONS = 4.0  # of the sketch's estimate below the threshold at which a pair is thrown out unread
SEED = 1
SPACES = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})
Texts = Sequence[str] | Mapping[int, str]
GAPS = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """A text as it is compared: forms and case folded, punctuation and spaces as one; signs alone stay themselves."""
    if text.isascii():  # the same, several times faster
        return " ".join(text.lower().translate(SPACES).split()) or text.strip()
    folded = unicodedata.normalize("NFKC", text).casefold()
    return GAPS.sub(" ", folded).strip() or folded.strip()


def shingle_hashes(texts: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray]:
    """The shingles of all texts as 64-bit hashes, one after the other, and where each text begins (and the last ends).

    Returns:
        Hashes, uint64 of shape (shingles,), with repeats; offsets, uint64 of shape (texts + 1,).
    """
    # No normalised text holds NUL, so filling up with it keeps short texts apart from long ones.
    clean = [normalise(text).ljust(size, "\0") for text in texts]
    lengths = np.fromiter(map(len, clean), dtype=np.int64, count=len(clean))
    codes = np.frombuffer("".join(clean).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    windows = max(len(codes) - size + 1, 0)
    hashes = np.zeros(windows, dtype=np.uint64)
    for place in range(size):
        hashes *= np.uint64(0x100000001B3)
        hashes += codes[place : place + windows]
    hashes ^= hashes >> np.uint64(29)  # the polynomial's low bits alone would be poor: mix them
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(32)
    inside = np.ones(len(codes), dtype=bool)
    ends = np.cumsum(lengths)
    for place in range(1, size):
        inside[ends - place] = False  # windows that reach into the next text
    return hashes[inside[:windows]], np.concatenate([[0], np.cumsum(lengths - size + 1)]).astype(np.uint64)


def signatures(texts: Sequence[str], size: int, permutations: int) -> np.ndarray:
    """The texts' MinHash signatures, uint64 of shape (texts, permutations)."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(*shingle_hashes(texts, size), permutations, SEED)
    return np.array(matrix.to_rows(), dtype=np.uint64)


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """How a signature is cut: the number of bands and the rows of each.

    Two texts of similarity s share a band with probability 1 - (1 - s^rows)^bands. Of the cuts that miss fewer than
    `MISS` at the threshold, the one with most rows proposes fewest pairs below it.
    """
    for rows in range(permutations, 1, -1):
        if (1.0 - threshold**rows) ** (permutations // rows) <= MISS:
            return permutations // rows, rows
    return permutations, 1


class NearIndex:
    """The compact traces of many texts, and which may be near each other: `threshold` is of Jaccard similarity."""

    def __init__(self, threshold: float, shingle: int, permutations: int = 128) -> None:
        self.threshold, self.shingle, self.permutations = threshold, shingle, permutations
        self.bands, self.rows = bands_for(threshold, permutations)
        self._keys: list[np.ndarray] = []  # of the bands, uint64 of shape (texts, bands)
        self._sketches: list[np.ndarray] = []  # the signatures' low bytes, uint8 of shape (texts, permutations)

    def add(self, texts: Sequence[str]) -> None:
        """Index texts; they are numbered in the order they come, from 0."""
        for start in range(0, len(texts), HASHED):
            signature = signatures(texts[start : start + HASHED], self.shingle, self.permutations)
            banded = signature[:, : self.bands * self.rows].reshape(len(signature), self.bands, self.rows)
            keys = np.zeros((len(signature), self.bands), dtype=np.uint64)
            for row in range(self.rows):
                keys = (keys ^ banded[:, :, row]) * np.uint64(0x9E3779B97F4A7C15)
                keys ^= keys >> np.uint64(31)
            self._keys.append(keys)
            self._sketches.append(signature.astype(np.uint8))

    def pairs(self, order: np.ndarray | None = None) -> np.ndarray:
        """Proposed pairs, unverified: int64 of shape (pairs, 2), the lower number first, sorted.

        `order`: all numbers, those first that a large bucket's members shall be compared with.
        """
        found = [np.empty((0, 2), dtype=np.int64)]
        if self._keys:
            keys, sketch = np.concatenate(self._keys), np.concatenate(self._sketches)
            order = np.arange(len(keys)) if order is None else order
            for band in keys.T:
                left, right = _equal_runs(band[order])
                found += self._alike(np.stack([order[left], order[right]], axis=1), sketch)
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)

    def _alike(self, pairs: np.ndarray, sketch: np.ndarray) -> Iterator[np.ndarray]:
        """The pairs whose sketches do not rule out that they reach the threshold."""
        deviation = (self.threshold * (1.0 - self.threshold) / self.permutations) ** 0.5
        enough = (self.threshold - DEVIATIONS * deviation) * self.permutations
        for start in range(0, len(pairs), 1 << 16):
            block = pairs[start : start + (1 << 16)]
            equal = np.count_nonzero(sketch[block[:, 0]] == sketch[block[:, 1]], axis=1)
            yield block[equal >= enough]


def _equal_runs(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of equal keys as pairs: each one with the first `MOST` places of its own key that come before it."""
    ordered = np.argsort(keys, kind="stable")
    keys = keys[ordered]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    sizes = np.diff(np.append(begins, len(keys)))
    begin = np.repeat(begins, sizes)
    lefts, rights = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for step in range(min(MOST, int(sizes.max()) - 1)):
        places = np.flatnonzero(np.arange(len(keys)) - begin > step)
        lefts.append(ordered[begin[places] + step])
        rights.append(ordered[places])
    return np.concatenate(lefts), np.concatenate(rights)


def similarities(pairs: np.ndarray, texts: Texts, shingle: int) -> np.ndarray:
    """The exact Jaccard similarity of each pair of texts, by their numbers: float64 of shape (pairs,)."""
    result = np.empty(len(pairs))
    for start in range(0, len(pairs), BATCH):
        numbers, places = np.unique(pairs[start : start + BATCH], return_inverse=True)
        matrix = _shingle_matrix([texts[int(number)] for number in numbers], shingle)
        left, right = places.reshape(-1, 2).T
        shared = matrix[left].multiply(matrix[right]).sum(axis=1)
        sizes = np.diff(matrix.indptr)
        result[start : start + BATCH] = shared / (sizes[left] + sizes[right] - shared)
    return result


def matches(
    asked: Sequence[str], known: Sequence[str], threshold: float, shingle: int
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of (number in `asked`, number in `known`) that are near, int64 of shape (pairs, 2), and how near.

    All are compared with all: for few known texts, such as evaluation items.
    """
    pairs, scores = [np.empty((0, 2), np.int64)], [np.empty(0)]
    for start in range(0, len(asked), BATCH):
        block = asked[start : start + BATCH]
        matrix = _shingle_matrix([*block, *known], shingle)
        sizes = np.diff(matrix.indptr)
        shared = (matrix[: len(block)] @ matrix[len(block) :].T).tocoo()
        left, right = shared.coords
        score = shared.data / (sizes[left] + sizes[len(block) + right] - shared.data)
        near = score >= threshold
        pairs.append(np.stack([left[near] + start, right[near]], axis=1))
        scores.append(score[near])
    return np.concatenate(pairs), np.concatenate(scores)


def _shingle_matrix(texts: Sequence[str], size: int) -> csr_array:
    from scipy.sparse import csr_array

    hashes, offsets = shingle_hashes(texts, size)
    different, columns = np.unique(hashes, return_inverse=True)
    shape = (len(texts), len(different))
    matrix = csr_array((np.ones(len(hashes), np.int64), columns, offsets.astype(np.int64)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def near_pairs(texts: Sequence[str], threshold: float, shingle: int, permutations: int = 128) -> np.ndarray:
    """All pairs of near texts: int64 of shape (pairs, 2)."""
    index = NearIndex(threshold, shingle, permutations)
    index.add(texts)
    pairs = index.pairs()
    return pairs[similarities(pairs, texts, shingle) >= threshold]


def duplicate_groups(texts: Sequence[str], threshold: float, shingle: int, permutations: int = 128) -> list[int]:
    """Group near duplicates transitively; returns for each text the number of the first text of its group."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs, count = near_pairs(texts, threshold, shingle, permutations), len(texts)
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    _, first = np.unique(labels, return_index=True)
    return [int(first[label]) for label in labels]
