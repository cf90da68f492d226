"""Bring a database to the schema this code needs, or back: `python -m tasks.store.migrate [--to REVISION] [--down]`.

Each call is one transaction on both databases: a migration that is killed has changed nothing. Starters that come
together queue: on SQLite behind the write lock, on PostgreSQL behind an advisory lock.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from tasks.core.errors import FlywheelError
from tasks.store.address import create_file, database_url, make_engine
from tasks.store.errors import StoreOutdated, StoreUnavailable
from tasks.store.schema import HEAD
from tasks.store.store import Store, revision_of

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
    if revision != HEAD or _current(url, home) != HEAD:
        _run(url, home, revision, down=False)
    return revision


def _current(url: str | None, home: Path | None) -> str | None:
    """Where it is now, asked without a lock and without Alembic, which takes a while to import."""
    address = database_url(url, home)
    if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
        return None
    store = Store(address)
    try:
        with store.read() as session:
            return revision_of(session)
    finally:
        store.close()


def downgrade(url: str | None, revision: str, home: Path | None = None) -> str:
    """Go back to a revision ("base" is an empty database). What the newer tables held is lost."""
    _run(url, home, revision, down=True)
    return revision


def _run(url: str | None, home: Path | None, revision: str, down: bool) -> None:
    from alembic import command
    from alembic.util import CommandError

    address = database_url(url, home)
    create_file(address)
    engine = make_engine(address)
    try:
        with engine.execution_options(writes=True).begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
            (command.downgrade if down else command.upgrade)(configuration(connection), revision)
    except CommandError as error:
        raise StoreOutdated(f"the database cannot be brought to {revision} by this code ({error}); update it") from None
    except OperationalError as error:
        first = str(error.orig).strip().split("\n")[0]
        raise StoreUnavailable(f"the database cannot be reached or is too busy: {first}") from None
    finally:
        engine.dispose()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Bring the store's database to a revision of its schema.")
    parser.add_argument("--to", default=HEAD, help="the revision, the newest by default")
    parser.add_argument("--down", action="store_true", help="go back to it: what newer tables hold is lost")
    given = parser.parse_args()
    try:
        if given.down:
            downgrade(None, given.to)
        else:
            migrate(revision=given.to)
    except FlywheelError as error:
        sys.exit(str(error))
    print(f"the store's schema is {given.to}")


if __name__ == "__main__":
    main()
