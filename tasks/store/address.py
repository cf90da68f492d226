"""Which database, and an engine for it, set up so that what is committed survives a crash.

SQLite: write-ahead log, synchronous FULL, foreign keys, 30 s of patience, and BEGIN IMMEDIATE for writers, so that two
writers queue instead of failing half way. PostgreSQL: psycopg 3; a connection whose commits would not wait for
the disk is told to. Only a file of its own and a server are databases here; in-memory SQLite is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from tasks.core import layout
from tasks.store.errors import StoreError

PATIENCE_SECONDS = 30


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
