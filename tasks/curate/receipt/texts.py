"""What every example ever seen says and where it comes from, gathered for the receipt from wherever it was kept.

Kept examples lie in the stages' tables, dropped ones in their quarantines; an example that was laid aside for the
evaluation is an evaluation item now. Texts are cut to EXCERPT characters: the receipt tells examples apart, it does not
store them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core import layout
from tasks.core.records import EvaluationItem, make_example, read_own_jsonl
from tasks.core.tables import BATCH, read_batches

if TYPE_CHECKING:
    import pyarrow as pa

EXCERPT = 160
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


def said_schema() -> pa.Schema:
    """What is said of an example: id, origin, source, and excerpts of instruction and output."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [("id", text), ("origin", text), ("source", pa.list_(text)), ("instruction", text), ("output", text)]
    )


def said_tables(beginning: str) -> pa.Table:
    """What the examples whose id has this beginning say; an example may come more than once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    tables = [said_schema().empty_table()]
    for batch in _batches():
        tables.append(excerpts(batch.filter(pc.starts_with(batch["id"], beginning))))
    return pa.concat_tables(tables)


def excerpts(table: pa.Table) -> pa.Table:
    """The texts cut to EXCERPT characters, those of users to none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    feedback = pc.equal(table["origin"], "feedback")
    columns = {name: table[name] for name in COLUMNS}
    for name in ("instruction", "output"):
        columns[name] = pc.if_else(feedback, "", pc.utf8_slice_codeunits(table[name], 0, EXCERPT))
    return pa.table(columns).cast(said_schema())


def _batches() -> Iterator[pa.Table]:
    import pyarrow as pa

    for path in (*TABLES, *filter(Path.is_file, [DROPPED])):
        yield from read_batches(path, columns=list(COLUMNS))
    rows: list[dict[str, Any]] = []
    for row in (*_quarantined(), *_evaluated()):
        rows.append(row)
        if len(rows) == BATCH:
            yield pa.Table.from_pylist(rows, schema=said_schema())
            rows = []
    yield pa.Table.from_pylist(rows, schema=said_schema())


def _quarantined() -> Iterator[dict[str, Any]]:
    """Examples in the quarantines, alone on their line or as its `example`; lines that never became one have no id."""
    for path in QUARANTINES:
        for line in _lines(path):
            row = json.loads(line)
            row = row.get("example", row)
            if row.keys() >= set(COLUMNS):
                yield {name: row[name] for name in COLUMNS}


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8") as stream:
            yield from stream


def _evaluated() -> Iterator[dict[str, Any]]:
    """The examples that evaluation items were made of, with the ids that they had as examples."""
    for name, origin in (("domain", "human"), ("dialogue", "general")):
        for item in read_own_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", EvaluationItem):
            example = make_example(
                instruction=item.prompt, output=item.reference, language="", origin=origin, source=item.source
            )
            yield {key: value for key, value in example.model_dump(mode="json").items() if key in COLUMNS}
