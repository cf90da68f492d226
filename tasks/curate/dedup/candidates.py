"""What deduplication keeps in memory of every row, and which pairs of rows that lets it propose.

Some 800 bytes a row: hashes of its normalised question, of its numbers, signs and negations, of a system text of its
own and of the triples it was made from, the near indices' traces (near.py), its id and its merit. Texts are read again
for the rows that a proposed pair names.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from tasks.core.params import DedupParams
from tasks.core.records import Example
from tasks.curate.dedup.substance import marks_of
from tasks.similarity.embedder import question_text, whole_text
from tasks.similarity.near import NearIndex

if TYPE_CHECKING:
    import numpy as np

# What goes first of two that say the same is last here.
ORIGINS = ("general", "self_instruct", "self_kv", "self_qa", "human", "feedback")
ENDS = " ,;:!?。、\"'“”‘’"  # of a sentence, once full-width forms are folded


class Traces:
    """What is kept in memory of the rows read so far, in their order."""

    def __init__(self, params: DedupParams) -> None:
        self.params = params
        near = params.near_threshold, params.shingle, params.permutations
        self.questions, self.wholes = NearIndex(*near), NearIndex(*near)
        self.ids: list[str] = []
        self.exact: list[int] = []
        self.marks: list[int] = []
        self.systems: list[int] = []
        self.triples: list[int] = []  # 0: not made from any
        self.merits: list[tuple[int, int, int]] = []

    def add(self, examples: Sequence[Example]) -> None:
        """Take in the next rows."""
        questions = [question_text(example) for example in examples]
        self.questions.add(questions)
        self.wholes.add([whole_text(example) for example in examples])
        self.ids += [example.id for example in examples]
        self.exact += [_hash(f"{exact_text(q)}\0{e.system}") for q, e in zip(questions, examples, strict=True)]
        self.marks += [_hash(" ".join(marks_of(text))) for text in questions]
        self.systems += [_hash(example.system) for example in examples]
        self.triples += [_hash("\n".join(e.source)) if e.origin == "self_kv" else 0 for e in examples]
        self.merits += [self._merit(row, e) for row, e in enumerate(examples, start=len(self.merits))]

    def _merit(self, row: int, example: Example) -> tuple[int, int, int]:
        """Corrections come in the order in which they were given, and the newest is what holds now."""
        worth = (row, 0) if example.origin == "feedback" else (len(example.source), len(example.output))
        return ORIGINS.index(example.origin), *worth

    def may_be_same(self, pairs: np.ndarray) -> np.ndarray:
        """Whether system texts, triples and the questions' marks allow a pair: bool of shape (pairs,)."""
        import numpy as np

        triples = np.array(self.triples, dtype=np.uint64)[pairs]
        may: np.ndarray = (triples[:, 0] == triples[:, 1]) | (triples == 0).any(axis=1)
        for known in (self.systems, self.marks):
            found = np.array(known, dtype=np.uint64)[pairs]
            may &= found[:, 0] == found[:, 1]
        return may

    def corrects(self, pair: Sequence[int]) -> bool:
        """Whether one of a pair is a user's correction, or their questions are equal: its answer is the one to keep."""
        one, other = pair
        corrections = {self.merits[row][0] == ORIGINS.index("feedback") for row in pair}
        return True in corrections or self.exact[one] == self.exact[other]

    def repeats(self, order: np.ndarray) -> np.ndarray:
        """Pairs of the best of equal questions and another one of them: int64 of shape (pairs, 2)."""
        import numpy as np

        exact = np.array(self.exact, dtype=np.uint64)
        _, first, group = np.unique(exact[order], return_index=True, return_inverse=True)
        best = order[first[group]]
        return np.stack([best, order], axis=1)[best != order]

    def order(self) -> np.ndarray:
        """The rows from the best to the worst."""
        import numpy as np

        origin, sources, length = np.array(self.merits, dtype=np.int64).reshape(-1, 3).T
        ids = np.array(self.ids, dtype="S64")
        return np.lexsort((ids, length, sources, origin))[::-1]


def exact_text(text: str) -> str:
    """A text as exact duplicates share it: compatibility forms, case and spaces folded, the sentence's ends left off.

    Signs inside stay: "C#" and "C++" are not one language.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.lstrip(ENDS).rstrip(f"{ENDS}.") or folded


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
