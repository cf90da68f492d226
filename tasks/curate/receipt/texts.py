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
from tasks.core.tables import read_batches

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


def said_table() -> pa.Table:
    """What every example says, excerpts only, and nothing of what users said; an example may come more than once."""
    import pyarrow as pa

    tables = [batch for path in TABLES for batch in read_batches(path, columns=list(COLUMNS))]
    if DROPPED.is_file():
        tables += read_batches(DROPPED, columns=list(COLUMNS))
    tables.append(pa.Table.from_pylist([*_quarantined(), *_evaluated()], schema=said_schema()))
    return pa.concat_tables([excerpts(table) for table in tables])


def excerpts(table: pa.Table) -> pa.Table:
    """The texts cut to EXCERPT characters, those of users to none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    feedback = pc.equal(table["origin"], "feedback")
    columns = {name: table[name] for name in COLUMNS}
    for name in ("instruction", "output"):
        columns[name] = pc.if_else(feedback, "", pc.utf8_slice_codeunits(table[name], 0, EXCERPT))
    return pa.table(columns).cast(said_schema())


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
