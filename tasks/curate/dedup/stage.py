"""Stage `dedup`: of examples that say the same, the best one stays; docs/data.md tells how that is judged.

Duplicates are exact (equal normalised questions, earlier turns included), near (shared characters, near.py) or semantic
(cosine, neighbours.py); the last two have to say the same in substance (substance.py), beside a correction in their
questions only. Two made from different triples, or under different system texts of their own, are none. The best: the
newest correction, then what people wrote, then what was constructed; then most sources, the longest answer, the highest
id. From the best down each stays that duplicates none that stays. Rows stream through twice; Traces stay in memory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import fresh_directory
from tasks.core.params import DedupParams, load_params
from tasks.core.records import Example, Receipt
from tasks.core.stage import run_stage, write_metrics
from tasks.core.tables import copy_rows, read_batches, records_at, records_of, write_records
from tasks.curate.dedup.substance import differ, marks_of, opposed
from tasks.similarity.embedder import SLACK, Embeddings, cosines, question_text, read_embeddings, whole_text
from tasks.similarity.near import NearIndex, similarities
from tasks.similarity.neighbours import pair_cosines, similar_pairs

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "dedup"
KINDS = ("exact", "near", "semantic")
REASONS = {"exact": "exact duplicate", "near": "near duplicate", "semantic": "says the same as another"}
Texts = dict[int, tuple[str, str]]  # question and whole of the rows that a pair names
# What goes first of two that say the same is last here.
ORIGINS = ("general", "self_instruct", "self_kv", "self_qa", "human", "feedback")
ENDS = " ,;:!?。、\"'“”‘’"  # of a sentence, once full-width forms are folded


class Traces:
    """What is kept in memory of the rows read so far, in their order: mostly hashes, of which a triple's 0 is none."""

    def __init__(self, params: DedupParams) -> None:
        self.params = params
        near = params.near_threshold, params.shingle, params.permutations
        self.questions, self.wholes = NearIndex(*near), NearIndex(*near)
        self.ids, self.merits = list[str](), list[tuple[int, int, int]]()
        self.exact, self.marks, self.systems, self.triples = (list[int]() for _ in range(4))

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
        for row, e in enumerate(examples, start=len(self.merits)):
            # Corrections come in the order in which they were given, and the newest is what holds now.
            worth = (row, 0) if e.origin == "feedback" else (len(e.source), len(e.output))
            self.merits.append((ORIGINS.index(e.origin), *worth))

    def may_be_same(self, pairs: np.ndarray) -> np.ndarray:
        """Whether system texts, triples and the questions' marks allow a pair: bool of shape (pairs,)."""
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
        exact = np.array(self.exact, dtype=np.uint64)
        _, first, group = np.unique(exact[order], return_index=True, return_inverse=True)
        best = order[first[group]]
        return np.stack([best, order], axis=1)[best != order]

    def order(self) -> np.ndarray:
        """The rows from the best to the worst."""
        origin, sources, length = np.array(self.merits, dtype=np.int64).reshape(-1, 3).T
        ids = np.array(self.ids, dtype="S64")
        return np.lexsort((ids, length, sources, origin))[::-1]


def exact_text(text: str) -> str:
    """A text as exact duplicates share it: case, spaces and ends folded; signs inside stay: "C#" is not "C++"."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.lstrip(ENDS).rstrip(f"{ENDS}.") or folded


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Pairs(NamedTuple):
    """Pairs of rows that are duplicates, int64 of shape (pairs, 2), with the kind and similarity of each."""

    rows: np.ndarray
    kinds: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Verdicts:
    """What became of each row: -1 or the row that stays in its place, and of what kind and how similar that one is."""

    keeper: np.ndarray
    kind: np.ndarray
    score: np.ndarray


def deduplicate(
    tables: Callable[[], Iterable[pa.Table]], embeddings: Embeddings, threshold: float, params: DedupParams
) -> tuple[list[str], Verdicts]:
    """The ids of rows, and what becomes of each; `tables` are passed over twice, `threshold` is wholes' cosine."""
    traces = Traces(params)
    for table in tables():
        traces.add(records_of(table, Example))
    order = traces.order()
    near = traces.questions.pairs(order), traces.wholes.pairs(order)
    semantic = find_semantic(traces, embeddings, threshold)
    named = records_at(tables(), (row for rows in (*near, semantic[0]) for row in rows.ravel()), Example)
    texts = {row: (question_text(example), whole_text(example)) for row, example in named.items()}
    return traces.ids, decide(order, traces.repeats(order), find_pairs(traces, texts, near, semantic))


def find_pairs(
    traces: Traces, texts: Texts, near: tuple[np.ndarray, np.ndarray], semantic: tuple[np.ndarray, np.ndarray]
) -> Pairs:
    """The duplicates among pairs that are proposed by questions or by wholes, and among `find_semantic`'s."""
    found = []
    for part, proposed in enumerate(near):
        rows = proposed[traces.may_be_same(proposed)]
        score = similarities(rows, {row: both[part] for row, both in texts.items()}, traces.params.shingle)
        alike = score >= traces.params.near_threshold
        found.append((rows[alike], score[alike]))
    rows, scores = (np.concatenate(columns) for columns in zip(*found, semantic, strict=True))
    kinds = np.where(np.arange(len(rows)) < len(rows) - len(semantic[0]), KINDS.index("near"), KINDS.index("semantic"))
    pairs = Pairs(rows, kinds, scores)
    same = _say_the_same(traces, texts, pairs.rows)
    return Pairs(*(column[same] for column in pairs))


def _say_the_same(traces: Traces, texts: Texts, rows: np.ndarray) -> np.ndarray:
    parted = {row: (question, whole[len(question) + 1 :]) for row, (question, whole) in texts.items()}

    def same(pair: list[int]) -> bool:
        one, other = (parted[row] for row in pair)
        return not opposed(one[0], other[0]) and (traces.corrects(pair) or not differ(one, other))

    return np.array([same(pair) for pair in rows.tolist()], dtype=bool)


def find_semantic(traces: Traces, embeddings: Embeddings, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose wholes reach the cosine and whose questions come near it, and their cosines."""
    question, whole = embeddings.rows(traces.ids)
    rows, score = similar_pairs(whole, threshold)
    same = traces.may_be_same(rows) & (pair_cosines(question, rows) >= threshold - SLACK)
    return rows[same], score[same]


def decide(order: np.ndarray, exact: np.ndarray, pairs: Pairs) -> Verdicts:
    """Which rows stay: from the best to the worst (`order`), each one that duplicates none that stays.

    `exact` are pairs of the best of equal questions and another one of them. A dropped row names, of its duplicates
    that stay, that of the most certain kind, then the most similar, then the best.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    repeated = np.zeros(len(order), dtype=bool)
    repeated[exact[:, 1]] = True
    live = ~repeated[pairs.rows].any(axis=1)
    ranks, kinds, scores = np.sort(rank[pairs.rows[live]], axis=1), pairs.kinds[live], pairs.scores[live]
    by = np.lexsort((ranks[:, 0], -scores, kinds, ranks[:, 1]))  # a row's pairs together, better rows before it
    keeper, kind = np.full(len(order), -1, np.int64), np.full(len(order), -1, np.int8)
    score = np.zeros(len(order), np.float32)
    better, worse = order[ranks[by, 0]].tolist(), order[ranks[by, 1]].tolist()
    for pair, one, other in zip(by.tolist(), better, worse, strict=True):
        if keeper[other] < 0 and keeper[one] < 0:
            keeper[other], kind[other], score[other] = one, kinds[pair], scores[pair]
    best, rest = exact.T
    keeper[rest] = np.where(keeper[best] < 0, best, keeper[best])
    kind[rest], score[rest] = KINDS.index("exact"), 1.0
    return Verdicts(keeper, kind, score)


def receipts_of(ids: Sequence[str], verdicts: Verdicts) -> Iterator[Receipt]:
    """A receipt for every row."""
    for row, keeper in enumerate(verdicts.keeper.tolist()):
        found: dict[str, Any] = {"kept": True, "reason": "no better duplicate"}
        if keeper >= 0:
            score = round(float(verdicts.score[row]), 6)
            found = {"kept": False, "reason": REASONS[KINDS[verdicts.kind[row]]], "detail": ids[keeper], "score": score}
        yield Receipt(example_id=ids[row], stage=STAGE, **found)


def dedup() -> str:
    """Deduplicate data/validate into data/dedup; returns what happened, in a sentence."""
    params = load_params()
    threshold = params.dedup.semantic_threshold or cosines(load_domain(params.domain)).same
    path = layout.VALIDATE / "examples.parquet"
    embeddings = read_embeddings(layout.EMBED / "examples.parquet")
    ids, verdicts = deduplicate(lambda: read_batches(path), embeddings, threshold, params.dedup)
    with fresh_directory(layout.DEDUP) as folder:
        copy_rows(path, folder / "examples.parquet", (verdicts.keeper < 0).tolist(), Example)
        write_records(folder / "receipt.parquet", receipts_of(ids, verdicts), Receipt)
    counts = {kind: int((verdicts.kind == number).sum()) for number, kind in enumerate(KINDS)}
    kept = len(ids) - sum(counts.values())
    write_metrics(STAGE, {"examples": kept, "dropped": len(ids) - kept}, counts)
    dropped = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{kept} of {len(ids)} examples are left; duplicates: {dropped}"


if __name__ == "__main__":
    run_stage(STAGE, dedup)
