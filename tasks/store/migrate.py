"""Bring a database to the schema this code needs: `python -m tasks.store.migrate`. There is no way back.

Each call is one transaction on both databases: a migration that is killed has changed nothing. Starters that come
together queue: on SQLite behind the write lock, on PostgreSQL behind an advisory lock.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import URL, Connection, text
from sqlalchemy.exc import OperationalError

from tasks.core.errors import FlywheelError
from tasks.store.address import create_file, database_url, make_engine
from tasks.store.errors import StoreOutdated, StoreUnavailable
from tasks.store.schema import HEAD
from tasks.store.store import Store, first_line, revision_of

if TYPE_CHECKING:
    from alembic.config import Config

# Any number does, as long as nobody else uses it in the same database.
ADVISORY_LOCK = 0x666C7977


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's settings, without a file of their own."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def migrate(url: str | None = None, home: Path | None = None, revision: str = HEAD) -> str:
    """Upgrade to a revision, the newest by default; returns it. Nothing to do is no change.

    Raises:
        StoreUnavailable: the database cannot be reached.
        StoreOutdated: its schema is one that this code does not know.
    """
    address = database_url(url, home)
    if revision != HEAD or _current(address) != HEAD:
        _upgrade(address, revision)
    return revision


def _current(address: URL) -> str | None:
    """Where it is now, asked without a lock and without Alembic, which takes a while to import."""
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        return None
    store = Store(address)
    try:
        with store.read() as session:
            return revision_of(session)
    finally:
        store.close()


def _upgrade(address: URL, revision: str) -> None:
    from alembic import command
    from alembic.util import CommandError

    create_file(address)
    engine = make_engine(address)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            command.upgrade(configuration(connection), revision)
    except CommandError as error:
        raise StoreOutdated(f"the database cannot be brought to {revision} by this code ({error}); update it") from None
    except OperationalError as error:
        raise StoreUnavailable(f"the database cannot be reached or is too busy: {first_line(error)}") from None
    finally:
        engine.dispose()


def main() -> None:
    """The command."""
    argparse.ArgumentParser(description="Bring the store's database to the newest schema.").parse_args()
    try:
        print(f"the store's schema is {migrate()}")
    except FlywheelError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
