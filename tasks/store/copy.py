"""A store copied into an empty one: into an SQLite file for a backup, and from one database to the other.

It holds people's texts and hashes of keys: encrypt what leaves the machine.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, func, insert, select, text

from tasks.store.address import database_url, make_engine
from tasks.store.errors import StoreError
from tasks.store.migrate import migrate
from tasks.store.schema import Base
from tasks.store.store import Store

BATCH = 500


def copy_store(source: Store, url: str | None, home: Path | None = None) -> int:
    """Fill an empty store with every row of `source` as it is at one moment; returns how many. All or nothing.

    Raises:
        StoreError: the target cannot be reached, or has rows already.
    """
    migrate(url, home)
    engine, rows = make_engine(database_url(url, home)), 0
    try:
        with source.snapshot() as old, engine.execution_options(writes=True).begin() as new:
            tables = Base.metadata.sorted_tables
            if filled := [table.name for table in tables if new.execute(select(table).limit(1)).first()]:
                raise StoreError(f"the store already has rows in {', '.join(filled)}; name an empty one")
            for table in tables:
                wanted = select(table).order_by(*table.primary_key.columns)
                found = old.execution_options(yield_per=BATCH).execute(wanted)
                for batch in found.mappings().partitions():
                    new.execute(insert(table), [dict(row) for row in batch])
                    rows += len(batch)
            if engine.dialect.name == "postgresql":
                _continue_numbers(new)
    finally:
        engine.dispose()
    return rows


def _continue_numbers(connection: Connection) -> None:
    """PostgreSQL counts apart from the rows: let it go on after the highest number there is."""
    for table in Base.metadata.sorted_tables:
        for column in table.primary_key.columns:
            asked = {"table": table.name, "column": column.name}
            sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :column)"), asked)
            highest = connection.scalar(select(func.max(column)))
            if sequence is not None and highest is not None:
                connection.execute(text("SELECT setval(:sequence, :value)"), {"sequence": sequence, "value": highest})
