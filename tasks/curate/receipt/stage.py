"""Stage `receipt`: what became of every example ever seen, joined from the parts the data stages wrote.

One row an example, in the order of ids: what it says, where it comes from, whether it was trained on, the last word on
it, and its story step by step. The parts are joined in columns, in memory.

What users said is not copied here: receipts stay with every version, and personal text has to stay where it can be
deleted. Their rows carry the ids of their feedback.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.graph import data_stages
from tasks.core.records import Receipt, RecordError
from tasks.core.stage import run_stage
from tasks.core.tables import read_batches, schema_of, table_writer
from tasks.curate.receipt.texts import said_table

if TYPE_CHECKING:
    import pyarrow as pa

STAGE = "receipt"
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
    texts = said.take(pc.index_in(last["example_id"], value_set=said["id"].combine_chunks()))
    columns = {
        "example_id": last["example_id"],
        **{name: texts[name] for name in ("origin", "source", "instruction", "output")},
        "trained": is_trained,
        "last_stage": last["stage"],
        **{name: last[name] for name in ("reason", "detail", "score")},
        "story": pa.ListArray.from_arrays(pa.array(bounds, type=pa.int32()), story),
    }
    return pa.table([columns[name] for name in receipt_schema().names], schema=receipt_schema())


def trained_ids(path: Path) -> pa.Array:
    """The different ids in a file of training rows, read a line at a time.

    Raises:
        RecordError: the file is missing, or a line of it is no row with an id.
    """
    import pyarrow as pa

    try:
        with path.open(encoding="utf-8") as stream:
            return pa.array(dict.fromkeys(json.loads(line)["id"] for line in stream), type=pa.string())
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
    import pyarrow as pa
    import pyarrow.compute as pc

    trained = trained_ids(train)
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
