"""Records as Arrow tables: how data stages pass on what grows, batch by batch, in bounded memory.

Files take their names when they are whole. Equal rows in equal order give equal bytes, however they were batched. A
function from a table to a table runs under Ray Data's `map_batches(..., batch_format="pyarrow")` as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from tasks.core.records import AnyRecord, Record, RecordError

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 10_000  # rows a batch
ROW_GROUP = 50_000  # rows a group of the Parquet file, whatever the batches


def schema_of(kind: type[Record]) -> pa.Schema:
    """The Arrow schema of a kind of record, its fields in order; raises KeyError for a type that tables do not keep."""
    import pyarrow as pa

    return pa.schema([(name, _arrow(field.annotation)) for name, field in kind.model_fields.items()])


def _arrow(annotation: Any) -> pa.DataType:
    """The Arrow type of a field: optional ones may be null, tuples are lists, records are structs."""
    import pyarrow as pa

    outer, inner = get_origin(annotation), get_args(annotation)
    if outer is Literal:
        return _arrow(type(inner[0]))
    if outer is tuple:
        return pa.list_(_arrow(inner[0]))
    if outer is UnionType:
        return _arrow(next(one for one in inner if one is not NoneType))
    if issubclass(annotation, Record):
        return pa.struct(list(schema_of(annotation)))
    return {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}[annotation]


def table_of(records: Sequence[AnyRecord], kind: type[AnyRecord]) -> pa.Table:
    """Records as one table."""
    import pyarrow as pa

    return pa.Table.from_pylist([record.model_dump(mode="json") for record in records], schema=schema_of(kind))


def records_of(table: pa.Table, kind: type[AnyRecord]) -> list[AnyRecord]:
    """The records of a table. Raises pydantic.ValidationError: a row is not such a record."""
    return [kind.model_validate(row) for row in table.to_pylist()]


class TableWriter:
    """Writes tables into one Parquet file; rows are regrouped, so that the batches' sizes leave no mark."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._file = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        self.rows += table.num_rows
        self._waiting.append(table.cast(self._schema))
        self._waiting_rows += table.num_rows
        while self._waiting_rows >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def close(self) -> None:
        """Write what waits, and the file's end."""
        if self._waiting_rows:
            self._flush(self._waiting_rows)
        self._file.close()

    def _flush(self, rows: int) -> None:
        import pyarrow as pa

        table = pa.concat_tables(self._waiting)
        self._file.write_table(table.slice(0, rows).combine_chunks(), row_group_size=rows)
        self._waiting, self._waiting_rows = [table.slice(rows)], self._waiting_rows - rows


@contextmanager
def table_writer(path: Path, schema: pa.Schema) -> Iterator[TableWriter]:
    """Yield a writer whose file takes the name `path` when the block ends without error, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer = TableWriter(temporary, schema)
    try:
        yield writer
        writer.close()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_records(path: Path, records: Iterable[AnyRecord], kind: type[AnyRecord]) -> int:
    """Write records as Parquet, whole or not at all, a batch in memory at a time; returns how many."""
    rows = 0
    with record_writer(path, kind) as add:
        for rows, record in enumerate(records, start=1):  # noqa: B007 - counted
            add(record)
    return rows


@contextmanager
def record_writer(path: Path, kind: type[AnyRecord]) -> Iterator[Callable[[AnyRecord], None]]:
    """Yield a function that adds a record to a Parquet file, for work that fills several files in one pass."""
    with table_writer(path, schema_of(kind)) as writer:
        batch: list[AnyRecord] = []

        def add(record: AnyRecord) -> None:
            batch.append(record)
            if len(batch) == BATCH:
                writer.write(table_of(batch, kind))
                batch.clear()

        yield add
        writer.write(table_of(batch, kind))


def read_batches(path: Path, rows: int = BATCH, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield a Parquet file's rows as tables of at most `rows`; raises RecordError where it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _readable(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            yield pa.Table.from_batches([batch])


def read_records(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """All records of a Parquet file, for stages whose work needs them together; raises as read_batches."""
    return [record for table in read_batches(path) for record in records_of(table, kind)]


def records_at(tables: Iterable[pa.Table], rows: Iterable[int], kind: type[AnyRecord]) -> dict[int, AnyRecord]:
    """The records of some rows, by their numbers and in order; `tables` are those of `read_batches`."""
    import numpy as np

    wanted, start = np.unique(np.fromiter(rows, dtype=np.int64)), 0
    found: dict[int, AnyRecord] = {}
    for table in tables:
        inside = wanted[(wanted >= start) & (wanted < start + table.num_rows)]
        found |= zip(inside.tolist(), records_of(table.take(inside - start), kind), strict=True)
        start += table.num_rows
    return found


def copy_rows(source: Path, target: Path, kept: Sequence[bool], kind: type[Record]) -> None:
    """Copy the rows of a Parquet file of records that are `kept`, a batch in memory at a time."""
    import pyarrow as pa

    start = 0
    with table_writer(target, schema_of(kind)) as writer:
        for table in read_batches(source):
            writer.write(table.filter(pa.array(kept[start : start + table.num_rows], pa.bool_())))
            start += table.num_rows


def count_rows(path: Path) -> int:
    """The rows of a Parquet file, read from its end alone. Raises RecordError: the file is missing or damaged."""
    import pyarrow.parquet as pq

    with _readable(path):
        return int(pq.read_metadata(path).num_rows)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except FileNotFoundError:
        raise RecordError(f"{path} is missing; run the stage that writes it: dvc repro") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise RecordError(f"{path} is damaged ({error}); run dvc repro") from None
