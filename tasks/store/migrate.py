"""Bring a database to the schema this code needs: `python -m tasks.store.migrate`. There is no way back.

A new database is made from the tables themselves, an older one by migrations. Each call is one transaction on both
databases: one that is killed has changed nothing. Starters that come together queue: on SQLite behind the write lock,
on PostgreSQL behind an advisory lock. And a store copied into an empty one, for backups and to change the database.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, func, insert, select, text
from sqlalchemy.exc import OperationalError

from tasks.core.errors import FlywheelError
from tasks.store.errors import StoreError, StoreOutdated, StoreUnavailable
from tasks.store.schema import HEAD, Base
from tasks.store.store import Store, create_file, database_url, first_line, make_engine, revision_of

if TYPE_CHECKING:
    from alembic.config import Config

# Any number does, as long as nobody else uses it in the same database.
ADVISORY_LOCK = 0x666C7977
BATCH = 500


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's settings, without a file of their own."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate(url: str | None = None, home: Path | None = None) -> str:
    """Bring it to the newest revision; returns that. Nothing to do is no change.

    Raises:
        StoreUnavailable: the database cannot be reached.
        StoreOutdated: its schema is one that this code does not know.
    """
    address = database_url(url, home)
    if _current(address) != HEAD:
        _upgrade(address)
    return HEAD


def _current(address: URL) -> str | None:
    """Where it is now, asked without a lock and without Alembic, which takes a while to import."""
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        return None
    store = Store(address)
    try:
        with store.read() as session:
            return revision_of(session.connection())
    finally:
        store.close()


def _upgrade(address: URL) -> None:
    from alembic import command
    from alembic.util import CommandError

    create_file(address)
    engine = make_engine(address)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            if revision_of(connection) is None:
                Base.metadata.create_all(connection)
                command.stamp(configuration(connection), HEAD)
            else:
                command.upgrade(configuration(connection), HEAD)
    except CommandError as error:
        raise StoreOutdated(f"the database cannot be brought to {HEAD} by this code ({error}); update it") from None
    except OperationalError as error:
        raise StoreUnavailable(f"the database cannot be reached or is too busy: {first_line(error)}") from None
    finally:
        engine.dispose()


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


def main() -> None:
    """The command."""
    argparse.ArgumentParser(description="Bring the store's database to the newest schema.").parse_args()
    try:
        print(f"the store's schema is {migrate()}")
    except FlywheelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
