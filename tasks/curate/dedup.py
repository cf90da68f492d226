"""Stage `dedup`: of examples that say the same, the best one stays.

Near duplicates by their question, or by question and answer together (near.py). Groups are transitive. The one kept
is the one with the most named sources, then the longest answer, then the first in order of id.
"""

from __future__ import annotations

from collections import defaultdict

from tasks import layout
from tasks.curate.near import duplicate_groups
from tasks.files import fresh_directory, write_json
from tasks.params import DedupParams, load_params
from tasks.records import Example, Receipt, read_own_jsonl, write_jsonl
from tasks.stage import run_stage

STAGE = "dedup"


def keep_best(examples: list[Example], params: DedupParams) -> tuple[list[Example], list[Receipt]]:
    """One example of each group of near duplicates, in the order they came, and a receipt for every example."""
    questions = _groups([example.prompt for example in examples], params)
    wholes = _groups([f"{example.prompt}\n{example.output}" for example in examples], params)
    members: dict[int, list[Example]] = defaultdict(list)
    for example, group in zip(examples, _joined(questions, wholes), strict=True):
        members[group].append(example)
    best = {group: max(found, key=_merit) for group, found in members.items()}
    kept_ids = {example.id for example in best.values()}
    receipts = [
        Receipt(example_id=e.id, stage=STAGE, kept=True, reason="no better duplicate")
        if e.id in kept_ids
        else Receipt(example_id=e.id, stage=STAGE, kept=False, reason="near duplicate", detail=best[group].id)
        for group, found in members.items()
        for e in found
    ]
    return [example for example in examples if example.id in kept_ids], receipts


def _merit(example: Example) -> tuple[int, int, str]:
    return len(example.source), len(example.output), example.id


def _groups(texts: list[str], params: DedupParams) -> list[int]:
    return duplicate_groups(texts, params.near_threshold, params.shingle, params.permutations)


def _joined(left: list[int], right: list[int]) -> list[int]:
    """The groups that follow when two examples belong together in either grouping (connected components)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(left)
    rows, columns = [*range(count), *range(count)], [*left, *right]
    graph = coo_array(([1] * len(rows), (rows, columns)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1]
    return [int(label) for label in labels]


def dedup() -> str:
    """Deduplicate data/validate into data/dedup; returns what happened, in a sentence."""
    examples = read_own_jsonl(layout.VALIDATE / "examples.jsonl", Example)
    kept, receipts = keep_best(examples, load_params().dedup)
    with fresh_directory(layout.DEDUP) as folder:
        write_jsonl(folder / "examples.jsonl", kept)
        write_jsonl(folder / "receipt.jsonl", receipts)
    write_json(layout.METRICS / "dedup.json", {"rows": len(examples), "kept": len(kept)})
    return f"{len(kept)} of {len(examples)} examples are left"


if __name__ == "__main__":
    run_stage(STAGE, dedup)
