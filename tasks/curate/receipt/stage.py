"""Stage `receipt`: what became of every example ever seen, joined from the parts the data stages wrote.

One row an example, in the order of ids: what it says, where it comes from, whether it was trained on, the last word on
it, and its story step by step. The parts are joined a slice of ids at a time, in columns, so that memory holds a slice
and not the whole.

What users said is not copied here: receipts stay with every version, and personal text has to stay where it can be
deleted. Their rows carry the ids of their feedback.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.graph import data_stages
from tasks.core.records import RecordError
from tasks.core.stage import run_stage
from tasks.core.tables import count_rows, read_batches, table_writer
from tasks.curate.receipt.texts import said_tables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

STAGE = "receipt"
SLICE = 500_000  # steps joined at a time, about
HEX = "0123456789abcdef"
STEP = ("stage", "kept", "reason", "detail", "score")
SHORTEST_PREFIX = 8
MOST_FOUND = 20


class ReceiptError(FlywheelError):
    """The parts do not add up."""


def receipt_schema() -> pa.Schema:
    """The columns of reports/receipt.parquet."""
    import pyarrow as pa

    text = pa.string()
    step = [("stage", text), ("kept", pa.bool_()), ("reason", text), ("detail", text), ("score", pa.float64())]
    return pa.schema(
        [("example_id", text), ("origin", text), ("source", pa.list_(text)), ("instruction", text), ("output", text)]
        + [("trained", pa.bool_()), ("last_stage", text), ("reason", text), ("detail", text), ("score", pa.float64())]
        + [("story", pa.list_(pa.struct(step)))]
    )


def join(steps: pa.Table, said: pa.Table, trained: pa.Array) -> pa.Table:
    """One row an example: what it says, its story in order, whether it was trained on, and the last word on it.

    Args:
        steps: receipts (tables.schema_of(Receipt)), in the order in which they were written.
        said: what examples say (said.said_schema()); the first row of an id counts, and an id may be missing.
        trained: ids of the examples that are trained on; those not in `steps` are not looked at.

    Raises:
        ReceiptError: an example is trained on that its last step does not let through.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    order = steps.append_column("row", pa.array(np.arange(len(steps)))).sort_by(
        [("example_id", "ascending"), ("row", "ascending")]
    )
    ids = order["example_id"].combine_chunks()
    starts = _starts(ids)
    last = order.take(pa.array(np.append(starts[1:], len(ids)) - 1)) if len(ids) else order
    is_trained = pc.is_in(last["example_id"], value_set=trained)
    unaccounted = last.filter(pc.and_not(is_trained, last["kept"]))["example_id"]
    if len(unaccounted):
        raise ReceiptError(
            f"{len(unaccounted)} trained examples have no receipt that keeps them, first {pc.min(unaccounted)}"
        )
    story = pa.StructArray.from_arrays([order[name].combine_chunks() for name in STEP], names=list(STEP))
    offsets = pa.array(np.append(starts, len(ids)), type=pa.int32())
    texts = said.take(pc.index_in(last["example_id"], value_set=said["id"].combine_chunks()))
    columns = {
        "example_id": last["example_id"],
        **{name: texts[name] for name in ("origin", "source", "instruction", "output")},
        "trained": is_trained,
        "last_stage": last["stage"],
        **{name: last[name] for name in ("reason", "detail", "score")},
        "story": pa.ListArray.from_arrays(offsets, story),
    }
    return pa.table([columns[name] for name in receipt_schema().names], schema=receipt_schema())


def _starts(ids: pa.Array) -> np.ndarray:
    """Where in sorted ids each new one begins."""
    import numpy as np
    import pyarrow.compute as pc

    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    changed = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return np.append(0, np.flatnonzero(changed) + 1)


def slices(rows: int) -> list[str]:
    """Beginnings of ids that part them all into slices of about SLICE rows: [""], or all of 1 or more hex digits."""
    beginnings = [""]
    while rows / len(beginnings) > SLICE:
        beginnings = [start + digit for start in beginnings for digit in HEX]
    return beginnings


def steps_of(parts: tuple[Path, ...], beginning: str) -> pa.Table:
    """The receipts of all ids with this beginning, in the order of the parts.

    Raises:
        RecordError: a part is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from tasks.core.records import Receipt
    from tasks.core.tables import schema_of

    tables = [schema_of(Receipt).empty_table()]
    for folder in parts:
        for batch in read_batches(folder / "receipt.parquet"):
            tables.append(batch.filter(pc.starts_with(batch["example_id"], beginning)))
    return pa.concat_tables(tables)


def trained_ids(path: Path) -> pa.Array:
    """The ids in a file of training rows, read a line at a time.

    Raises:
        RecordError: the file is missing, or a line of it is no row with an id.
    """
    import pyarrow as pa

    def ids() -> Iterator[str]:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)["id"]

    try:
        return pa.array(dict.fromkeys(ids()), type=pa.string())
    except FileNotFoundError:
        raise RecordError(f"{path} is missing; run the stage that writes it: dvc repro") from None
    except (ValueError, KeyError) as error:
        raise RecordError(f"{path} is damaged ({error}); run dvc repro") from None


def write_receipt(path: Path, parts: tuple[Path, ...], train: Path) -> tuple[int, int]:
    """Join the parts into `path`; returns how many examples there are, and how many are trained on.

    Raises:
        ReceiptError: an example is trained on that has no receipt that keeps it.
        RecordError: a part is missing or damaged.
    """
    import pyarrow.compute as pc

    trained = trained_ids(train)
    total = sum(count_rows(folder / "receipt.parquet") for folder in parts)
    accounted = 0
    with table_writer(path, receipt_schema()) as writer:
        for beginning in slices(total):
            table = join(steps_of(parts, beginning), said_tables(beginning), trained)
            accounted += pc.sum(table["trained"]).as_py() or 0
            writer.write(table)
        if accounted != len(trained):
            raise ReceiptError(f"{len(trained) - accounted} trained examples have no receipt that keeps them")
        return writer.rows, accounted


def find_receipts(path: Path, prefix: str) -> list[dict[str, Any]]:
    """The rows of the examples whose id begins with `prefix`, of SHORTEST_PREFIX hex digits or more; none if shorter.

    The file is sorted by id, and only the parts of it that may hold them are read.

    Raises:
        OSError: the file cannot be read.
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
