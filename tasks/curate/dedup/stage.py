"""Stage `dedup`: of examples that say the same, the best one stays.

Two examples are duplicates in one of three ways, told in this order of certainty:
- exact: their normalised questions are equal, earlier turns included;
- near: their questions, or question and answer together, share characters up to the threshold (near.py);
- semantic: question and answer together mean the same by their embeddings (neighbours.py), and so nearly do their
  questions.
The last two need examples that say the same in substance (substance.py): "article 73" and "article 74" share nearly
every character, and all their meaning to an embedder. Beside a correction only the questions count. Two examples made
from different triples of a knowledge graph are never near or semantic duplicates, since a template words them alike
and only a name tells them apart. Nor is one that holds under a system text of its own the duplicate of one under
another.

Which is best: corrections by users, the newest first, then what people wrote, then what was constructed; then the most
named sources, the longest answer, the highest id. Of equal questions the best goes on; then, in this order, each one
stays unless it is a duplicate of one that stays. So every dropped one names a better one that it duplicates itself (a
chain a-b-c whose ends differ keeps both ends), and the best of a cluster always stays.

Rows stream through twice; what stays in memory in between is in candidates.py, beside the texts of rows that may have a
duplicate and the embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import fresh_directory
from tasks.core.metrics import write_metrics
from tasks.core.params import DedupParams, load_params
from tasks.core.records import Example, Receipt
from tasks.core.stage import run_stage
from tasks.core.tables import read_batches, records_at, records_of, schema_of, table_of, table_writer
from tasks.curate.dedup.candidates import Traces
from tasks.curate.dedup.substance import differ, opposed
from tasks.similarity.embedder import SLACK, Embeddings, cosines, question_text, read_embeddings, whole_text
from tasks.similarity.near import similarities
from tasks.similarity.neighbours import pair_cosines, similar_pairs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

STAGE = "dedup"
KINDS = ("exact", "near", "semantic")
REASONS = {"exact": "exact duplicate", "near": "near duplicate", "semantic": "says the same as another"}


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


Texts = dict[int, tuple[str, str]]  # question and whole of the rows that a pair names


def deduplicate(
    tables: Callable[[], Iterable[pa.Table]], embeddings: Embeddings, threshold: float, params: DedupParams
) -> tuple[list[str], Verdicts]:
    """The ids of rows, and what becomes of each.

    Args:
        tables: of examples; they are passed over twice.
        embeddings: of the examples, by their ids.
        threshold: cosine from which on wholes mean the same.
        params: of the other passes.
    """
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
    import numpy as np

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
    """Of each pair whether its examples do not differ in substance: bool of shape (pairs,)."""
    import numpy as np

    parted = {row: (question, whole[len(question) + 1 :]) for row, (question, whole) in texts.items()}
    sides = [(pair, parted[pair[0]], parted[pair[1]]) for pair in rows.tolist()]
    return np.array(
        [
            not opposed(one[0], other[0]) and (traces.corrects(pair) or not differ(one, other))
            for pair, one, other in sides
        ],
        dtype=bool,
    )


def find_semantic(traces: Traces, embeddings: Embeddings, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose wholes reach the cosine and whose questions come near it, and their cosines."""
    question, whole = embeddings.rows(traces.ids)
    rows, score = similar_pairs(whole, threshold)
    same = traces.may_be_same(rows) & (pair_cosines(question, rows) >= threshold - SLACK)
    return rows[same], score[same]


def decide(order: np.ndarray, exact: np.ndarray, pairs: Pairs) -> Verdicts:
    """Which rows stay: from the best to the worst, each one that duplicates none that stays.

    Args:
        order: the rows from the best to the worst.
        exact: pairs of (the best of equal questions, another one of them).
        pairs: the other duplicates.

    Returns:
        For a dropped row, of its duplicates that stay, the most certain kind, then the most similar, then the best.
    """
    import numpy as np

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


def receipts_of(ids: Sequence[str], verdicts: Verdicts, start: int, stop: int) -> list[Receipt]:
    """The receipts of rows `start` to `stop`."""
    receipts = []
    for row in range(start, stop):
        keeper = int(verdicts.keeper[row])
        if keeper < 0:
            receipts.append(Receipt(example_id=ids[row], stage=STAGE, kept=True, reason="no better duplicate"))
            continue
        reason, score = REASONS[KINDS[verdicts.kind[row]]], round(float(verdicts.score[row]), 6)
        receipts.append(
            Receipt(example_id=ids[row], stage=STAGE, kept=False, reason=reason, detail=ids[keeper], score=score)
        )
    return receipts


def write(path: Path, folder: Path, ids: Sequence[str], verdicts: Verdicts) -> None:
    """Write the rows of `path` that stay, and a receipt for every row, a batch in memory at a time."""
    with (
        table_writer(folder / "examples.parquet", schema_of(Example)) as examples,
        table_writer(folder / "receipt.parquet", schema_of(Receipt)) as receipts,
    ):
        start = 0
        for table in read_batches(path):
            stop = start + table.num_rows
            examples.write(table.filter(verdicts.keeper[start:stop] < 0))
            receipts.write(table_of(receipts_of(ids, verdicts, start, stop), Receipt))
            start = stop


def dedup() -> str:
    """Deduplicate data/validate into data/dedup; returns what happened, in a sentence."""
    params = load_params()
    threshold = params.dedup.semantic_threshold or cosines(load_domain(params.domain)).same
    path = layout.VALIDATE / "examples.parquet"
    embeddings = read_embeddings(layout.EMBED / "examples.parquet")
    ids, verdicts = deduplicate(lambda: read_batches(path), embeddings, threshold, params.dedup)
    with fresh_directory(layout.DEDUP) as folder:
        write(path, folder, ids, verdicts)
    counts = {kind: int((verdicts.kind == number).sum()) for number, kind in enumerate(KINDS)}
    kept = len(ids) - sum(counts.values())
    write_metrics(STAGE, {"examples": kept, "dropped": len(ids) - kept}, counts)
    dropped = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    return f"{kept} of {len(ids)} examples are left; duplicates: {dropped}"


if __name__ == "__main__":
    run_stage(STAGE, dedup)
