"""Rows of Parquet and Arrow files, as the Hugging Face datasets library and data lakes keep them, a batch in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.corpus.reading.lines import EXCERPT
from tasks.corpus.reading.table_rows import Row, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 1000  # rows
INDEXED = b"ARROW1"  # how a file with an index begins


def columnar_rows(path: Path) -> Iterator[Row]:
    """The rows of a .parquet or .arrow file. Raises SourceError: it is damaged, or another file of that name."""
    import pyarrow as pa

    number = 0
    try:
        for batch in _parquet(path) if path.suffix.casefold() == ".parquet" else _arrow(path):
            for values in batch.to_pylist():
                number += 1
                fields = {name: _plain(value) for name, value in values.items()}
                yield Row(number, fields, json.dumps(fields, ensure_ascii=False, default=str)[:EXCERPT])
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path}: not readable as {path.suffix[1:]} behind row {number} ({error})") from None


def _parquet(path: Path) -> Iterator[pa.RecordBatch]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        yield from file.iter_batches(batch_size=BATCH)


def _arrow(path: Path) -> Iterator[pa.RecordBatch]:
    """A stream, as datasets writes one, or a file with an index at its end."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        indexed = source.read(len(INDEXED)) == INDEXED
        source.seek(0)
        if not indexed:
            yield from pa.ipc.open_stream(source)
            return
        file = pa.ipc.open_file(source)
        yield from (file.get_batch(place) for place in range(file.num_record_batches))


def _plain(value: Any) -> Any:
    """Days, times and exact numbers as texts."""
    return str(value) if isinstance(value, date | time | Decimal) else value
