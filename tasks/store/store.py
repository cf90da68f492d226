"""The open database. One Store a process, safe for all its threads: every call has a session of its own.

A call either committed before it returned, or changed nothing. Where the database cannot be reached or is too busy the
error is StoreUnavailable, and the same call may be made again: all writes of the other modules bear repeating.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, inspect, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from tasks.store.address import database_url, make_engine
from tasks.store.errors import BadValue, StoreError, StoreOutdated, StoreUnavailable
from tasks.store.schema import HEAD

MIGRATE = "python -m tasks.store.migrate"
Result = TypeVar("Result")


def new_id(kind: str) -> str:
    """An id nobody can guess: the kind, then 32 hexadecimal characters."""
    return f"{kind}_{secrets.token_hex(16)}"


class Store:
    """An open database with the schema this code needs."""

    def __init__(self, url: URL) -> None:
        """For open(): checks nothing."""
        self.url = url
        self._engine: Engine = make_engine(url)
        self._writer = self._engine.execution_options(writes=True)

    @classmethod
    def open(cls, url: str | None = None, home: Path | None = None) -> Store:
        """Open by URL, else FLYWHEEL_DATABASE_URL, else the file under `home`. Does not migrate.

        Raises:
            StoreOutdated: it has no schema, or another one than this code needs.
            StoreUnavailable: it cannot be reached.
        """
        address = database_url(url, home)
        if address.get_backend_name() == "sqlite" and not Path(str(address.database)).is_file():
            raise StoreOutdated(f"there is no store at {address.database}; make it with: {MIGRATE}")
        store = cls(address)
        try:
            store._check_revision()
        except BaseException:
            store.close()
            raise
        return store

    def _check_revision(self) -> None:
        with self.read() as session:
            found = revision_of(session)
        if found is None:
            raise StoreOutdated(f"the database has no schema yet; make it with: {MIGRATE}")
        if found != HEAD:
            raise StoreOutdated(f"the database's schema is {found}, this code needs {HEAD}; bring it there: {MIGRATE}")

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def ready(self) -> bool:
        """Whether the database answers."""
        try:
            with self.read() as session:
                return bool(session.execute(text("SELECT 1")).scalar_one() == 1)
        except StoreError:
            return False

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading: one consistent look on SQLite, statement by statement on PostgreSQL."""
        with _plain_errors(), Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that commits at the end, or not at all. An IntegrityError is passed on, for the caller to read."""
        with _plain_errors(), Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def write_or_look_again(self, work: Callable[[Session], Result]) -> Result:
        """`work` in a session as of `write`; anew where another one wrote the same row at the same time.

        Raises:
            StoreUnavailable: others did so three times in a row.
        """
        for _ in range(3):
            try:
                with self.write() as session:
                    return work(session)
            except IntegrityError:
                continue
        raise StoreUnavailable("others are writing the same rows; try again")

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees the store as it is now, until the block ends."""
        isolated = self._engine
        if isolated.dialect.name == "postgresql":
            isolated = isolated.execution_options(isolation_level="REPEATABLE READ")
        with _plain_errors(), isolated.connect() as connection:
            yield connection


def revision_of(session: Session) -> str | None:
    """The schema's revision, None where there is no schema."""
    if not inspect(session.connection()).has_table("alembic_version"):
        return None
    found = session.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return str(found) if found is not None else None


@contextmanager
def _plain_errors() -> Iterator[None]:
    """SQLAlchemy's errors as ours; its own messages hold the statement and the values, so they are left out."""
    try:
        yield
    except IntegrityError:
        raise
    except PoolTimeout:
        raise StoreUnavailable("the database is too busy; try again") from None
    except OperationalError as error:
        raise StoreUnavailable(f"the database cannot be reached or is too busy: {first_line(error)}") from None
    except (DataError, OverflowError):
        raise BadValue("a number is out of the database's range, or a value is not of its column's type") from None
    except DBAPIError as error:
        if error.connection_invalidated:
            raise StoreUnavailable(f"the database went away: {first_line(error)}") from None
        raise StoreError(f"the database refused: {first_line(error)}") from None
    except StatementError as error:
        if isinstance(error.orig, StoreError):
            raise error.orig from None
        raise


def first_line(error: DBAPIError) -> str:
    """What the database itself says, without statement and values."""
    return str(error.orig).strip().split("\n")[0][:200]
