"""The open database, and which it is. One Store a process, safe for all its threads: every call has its own session.

A call either committed before it returned, or changed nothing; where the database cannot be reached or is too busy the
error is StoreUnavailable, and the same call may be made again. SQLite: write-ahead log, synchronous FULL, foreign keys,
and BEGIN IMMEDIATE for writers, so that two queue instead of failing half way. PostgreSQL: psycopg 3; a connection
whose commits would not wait for the disk is told to.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from tasks.core import layout
from tasks.store.errors import BadValue, StoreError, StoreOutdated, StoreUnavailable
from tasks.store.schema import HEAD, Base

MIGRATE = "python -m tasks.store.migrate"
Result = TypeVar("Result")
PATIENCE_SECONDS = 30


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
            found = revision_of(session.connection())
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

    def add(self, row: Base, refusal: StoreError) -> None:
        """Store a new row; raises `refusal` where a constraint of the database does not allow it."""
        try:
            with self.write() as session:
                session.add(row)
        except IntegrityError:
            raise refusal from None

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
    def alone(self, what: str) -> Iterator[None]:
        """Do what only one may do at a time, whoever shares the database; others wait, and one that dies lets go.

        PostgreSQL: an advisory lock. SQLite, which is one machine's: a lock on a file beside it.
        """
        if self.url.get_backend_name() == "sqlite":
            with Path(f"{self.url.database}.{what}.lock").open("a") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX)
                yield
            return
        with self._engine.connect() as connection, connection.begin():
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:what))"), {"what": what})
            yield

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees the store as it is now, until the block ends."""
        isolated = self._engine
        if isolated.dialect.name == "postgresql":
            isolated = isolated.execution_options(isolation_level="REPEATABLE READ")
        with _plain_errors(), isolated.connect() as connection:
            yield connection


def revision_of(connection: Connection) -> str | None:
    """The schema's revision, None where there is no schema."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
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


def database_url(url: str | None = None, home: Path | None = None) -> URL:
    """The given URL, else FLYWHEEL_DATABASE_URL, else the file under `home` (else FLYWHEEL_ROOT, else here).

    A relative SQLite file is meant from there too, so that it does not move with the working directory.

    Raises:
        StoreError: it is no URL, or of a database that we do not run on.
    """
    given = url or os.environ.get("FLYWHEEL_DATABASE_URL")
    folder = home if home is not None else layout.home()
    if not given:
        return URL.create("sqlite", database=str((folder / layout.STORE / "flywheel.db").absolute()))
    try:
        parsed = make_url(given)
    except ArgumentError:
        raise StoreError("the database URL cannot be read; give sqlite:///FILE or postgresql+psycopg://…") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
        raise StoreError(f"no store on {parsed.drivername}; give sqlite:///FILE or postgresql+psycopg://…")
    if parsed.drivername == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise StoreError("the SQLite URL names no file; give sqlite:///FILE")
    if parsed.drivername == "sqlite":
        parsed = parsed.set(database=str((folder / str(parsed.database)).absolute()))
    return parsed


def make_engine(url: URL) -> Engine:
    """An engine with our durability. Opens no connection yet."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": PATIENCE_SECONDS, "check_same_thread": False})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url,
        pool_size=8,
        max_overflow=8,
        pool_timeout=PATIENCE_SECONDS,
        pool_pre_ping=True,  # after a restart of the server the pool holds dead connections
        connect_args={"connect_timeout": 10, "options": "-c timezone=UTC"},
    )
    event.listen(engine, "connect", _prepare_postgresql)
    return engine


def create_file(url: URL) -> None:
    """Make SQLite's file, readable by its owner only, where it is missing."""
    if url.get_backend_name() == "sqlite":
        path = Path(str(url.database))
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _prepare_sqlite(connection: sqlite3.Connection, record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN is left out: ours says what kind it is
    for setting in ("foreign_keys=ON", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {setting}")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:  # changing the mode does not wait for others by itself
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _begin_sqlite(connection: Connection) -> None:
    kind = "BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN"
    connection.exec_driver_sql(kind)


def _prepare_postgresql(connection: Any, record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        if cursor.fetchone()[0] == "off":
            cursor.execute("SET synchronous_commit = on")
    connection.commit()
