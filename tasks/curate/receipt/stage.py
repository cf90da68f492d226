"""Stage `receipt`: what became of every example ever seen, joined in memory from what the data stages wrote.

One row an example, by id: what it says (cut), where it comes from, whether it was trained on, the last word on it, and
its story. What users said is not copied: receipts stay with every version, and personal text has to stay deletable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.graph import data_stages
from tasks.core.records import EvaluationItem, Example, Receipt, make_example, read_own_jsonl
from tasks.core.stage import run_stage
from tasks.core.tables import read_batches, schema_of, table_writer

STAGE = "receipt"
HEX = "0123456789abcdef"
STEP = ("stage", "kept", "reason", "detail", "score")
SHORTEST_PREFIX = 8
MOST_FOUND = 20
EXCERPT = 160  # characters
TABLES = (
    layout.CONSTRUCT / "examples.parquet",
    layout.INGEST / "examples.parquet",
    layout.INGEST / "general.parquet",
    layout.INGEST / "safety.parquet",
    layout.FEEDBACK / "examples.parquet",
)
DROPPED = layout.INGEST / "dropped.parquet"  # where sources held examples that ingest did not keep
QUARANTINES = (layout.INGEST / "quarantine.jsonl", layout.CONSTRUCT / "quarantine.jsonl")
COLUMNS = ("id", "origin", "source", "instruction", "output")


def content_schema() -> pa.Schema:
    """What is said of an example: id, origin, source, and excerpts of instruction and output."""
    return pa.schema([schema_of(Example).field(name) for name in COLUMNS])


def said_table() -> pa.Table:
    """What every example says, excerpts only, and nothing of what users said; an example may come more than once."""
    tables = [batch for path in TABLES for batch in read_batches(path, columns=list(COLUMNS))]
    if DROPPED.is_file():
        tables += read_batches(DROPPED, columns=list(COLUMNS))
    tables.append(pa.Table.from_pylist([*_quarantined(), *_evaluated()], schema=content_schema()))
    return pa.concat_tables([excerpts(table) for table in tables])


def excerpts(table: pa.Table) -> pa.Table:
    """The texts cut to EXCERPT characters, those of users to none."""
    feedback = pc.equal(table["origin"], "feedback")
    columns = {name: table[name] for name in COLUMNS}
    for name in ("instruction", "output"):
        columns[name] = pc.if_else(feedback, "", pc.utf8_slice_codeunits(table[name], 0, EXCERPT))
    return pa.table(columns).cast(content_schema())


def _quarantined() -> Iterator[dict[str, Any]]:
    """Examples in the quarantines, alone on their line or as its `example`; lines that never became one have no id."""
    for path in filter(Path.is_file, QUARANTINES):
        with path.open(encoding="utf-8") as stream:
            for row in map(json.loads, stream):
                row = row.get("example", row)
                if row.keys() >= set(COLUMNS):
                    yield {name: row[name] for name in COLUMNS}


def _evaluated() -> Iterator[dict[str, Any]]:
    """The examples that evaluation items were made of, with the ids that they had as examples."""
    for name, origin in (("domain", "human"), ("dialogue", "general")):
        for item in read_own_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", EvaluationItem):
            example = make_example(
                instruction=item.prompt, output=item.reference, language="", origin=origin, source=item.source
            )
            yield {key: value for key, value in example.model_dump(mode="json").items() if key in COLUMNS}


class ReceiptError(FlywheelError):
    """The parts do not add up."""


def receipt_schema() -> pa.Schema:
    """The columns of reports/receipt.parquet."""
    text, contents, step = pa.string(), content_schema(), [schema_of(Receipt).field(name) for name in STEP]
    return pa.schema(
        [("example_id", text), *(contents.field(name) for name in COLUMNS[1:]), ("trained", pa.bool_())]
        + [("last_stage", text), *step[2:], ("story", pa.list_(pa.struct(step)))]
    )


def join(steps: pa.Table, contents: pa.Table, trained: pa.Array) -> pa.Table:
    """One row an example: what it says, its story in order, whether it was trained on, and the last word on it.

    `steps` are receipts in the order in which they were written; `contents` has content_schema(), where the first row
    of an id counts and one may be missing. Raises ReceiptError where its last step does not let a trained one through.
    """
    order = steps.append_column("row", pa.array(np.arange(len(steps)))).sort_by(
        [("example_id", "ascending"), ("row", "ascending")]
    )
    ids = order["example_id"].combine_chunks()
    # Where in the sorted ids each new one begins, and the last ends.
    changed = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    bounds = np.concatenate([[0], np.flatnonzero(changed) + 1, [len(ids)]]) if len(ids) else np.zeros(1, np.int64)
    last = order.take(pa.array(bounds[1:] - 1))
    is_trained = pc.is_in(last["example_id"], value_set=trained)
    unaccounted = last.filter(pc.and_not(is_trained, last["kept"]))["example_id"]
    if len(unaccounted):
        raise ReceiptError(
            f"{len(unaccounted)} trained examples have no receipt that keeps them, first {pc.min(unaccounted)}"
        )
    story = pa.StructArray.from_arrays([order[name].combine_chunks() for name in STEP], names=list(STEP))
    texts = contents.take(pc.index_in(last["example_id"], value_set=contents["id"].combine_chunks()))
    columns = {
        "example_id": last["example_id"],
        **{name: texts[name] for name in COLUMNS[1:]},
        "trained": is_trained,
        "last_stage": last["stage"],
        **{name: last[name] for name in ("reason", "detail", "score")},
        "story": pa.ListArray.from_arrays(pa.array(bounds, type=pa.int32()), story),
    }
    return pa.table([columns[name] for name in receipt_schema().names], schema=receipt_schema())


def write_receipt(path: Path, parts: tuple[Path, ...], train: Path) -> tuple[int, int]:
    """Join the parts into `path`; returns how many examples there are, and how many are trained on.

    Raises ReceiptError: an example is trained on that has no receipt that keeps it; RecordError: a part is missing or
    damaged.
    """
    trained = pa.array(dict.fromkeys(one.id for one in read_own_jsonl(train, Example)), type=pa.string())
    batches = [batch for folder in parts for batch in read_batches(folder / "receipt.parquet")]
    table = join(pa.concat_tables([schema_of(Receipt).empty_table(), *batches]), said_table(), trained)
    accounted = pc.sum(table["trained"]).as_py() or 0
    if accounted != len(trained):
        raise ReceiptError(f"{len(trained) - accounted} trained examples have no receipt that keeps them")
    with table_writer(path, receipt_schema()) as writer:
        writer.write(table)
    return len(table), accounted


def find_receipts(path: Path, prefix: str) -> list[dict[str, Any]]:
    """The rows of the examples whose id begins with `prefix`, of SHORTEST_PREFIX hex digits or more; none if shorter.

    The file is sorted by id, and only the parts of it that may hold them are read. Raises OSError: the file cannot be
    read.
    """
    import pyarrow.parquet as pq

    if len(prefix) < SHORTEST_PREFIX or prefix.strip(HEX):
        return []
    after = prefix + "g"  # the first text beyond all hex digits
    table = pq.read_table(path, filters=[("example_id", ">=", prefix), ("example_id", "<", after)])
    return list(table.slice(0, MOST_FOUND).to_pylist())


def receipt() -> str:
    """Join the parts into reports/receipt.parquet; returns what happened, in a sentence."""
    parts = tuple(layout.INGEST.with_name(name) for name in data_stages())
    rows, trained = write_receipt(layout.RECEIPT, parts, layout.MIX / "train.jsonl")
    return f"{rows} examples accounted for, {trained} of them trained on"


if __name__ == "__main__":
    run_stage(STAGE, receipt)
