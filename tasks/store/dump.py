"""A store as one portable text, and back: for backups, and for moving between SQLite and PostgreSQL.

    dump(store: Store) -> Iterator[bytes]                # lines of UTF-8 JSON, each with its newline
    load(url: str | None, lines: Iterable[bytes], home: Path | None = None) -> dict[str, int]   # rows by table

The first line names the schema's revision, then comes one line a row, tables in an order that foreign keys allow, and
last the number of rows and the SHA-256 of all lines before, so that a dump that was cut off or changed is refused. A
dump is one consistent look at the store while others go on writing. It holds people's texts and hashes of keys: encrypt
it. load() is one transaction: it leaves an empty store as it was unless everything fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, DateTime, Engine, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import DBAPIError

from tasks.store.address import database_url, make_engine
from tasks.store.errors import BadDump, StoreNotEmpty
from tasks.store.migrate import migrate
from tasks.store.schema import HEAD, Base
from tasks.store.store import Store

FORMAT = 1
BATCH = 500


def dump(store: Store) -> Iterator[bytes]:
    """The whole store, line by line, as it was at one moment."""
    digest, rows = hashlib.sha256(), 0
    for value in _values(store):
        line = _line(value)
        digest.update(line)
        rows += 1
        yield line
    yield _line({"end": {"rows": rows - 1, "sha256": digest.hexdigest()}})


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _values(store: Store) -> Iterator[dict[str, Any]]:
    yield {"flywheel_store": FORMAT, "revision": HEAD}
    with store.snapshot() as connection:
        for table in Base.metadata.sorted_tables:
            wanted = select(table).order_by(*table.primary_key.columns)
            for row in connection.execution_options(yield_per=BATCH).execute(wanted):
                yield {"table": table.name, "row": {name: _plain(value) for name, value in row._mapping.items()}}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def load(url: str | None, lines: Iterable[bytes], home: Path | None = None) -> dict[str, int]:
    """Fill an empty store from a dump, made of its schema and brought to the newest; returns rows by table.

    Raises:
        BadDump: it is damaged, cut off, or of a newer Flywheel.
        StoreNotEmpty: there are rows already.
    """
    checked = _checked(lines)
    revision = _header(next(checked, None))
    address = database_url(url, home)
    given = address.render_as_string(hide_password=False)
    migrate(given, revision=revision)
    engine = make_engine(address)
    try:
        counts = _fill(engine, checked)
    finally:
        engine.dispose()
    migrate(given)
    return counts


def _header(line: Any) -> str:
    if not isinstance(line, dict) or line.get("flywheel_store") != FORMAT:
        raise BadDump("this is no dump of a store that this Flywheel can read")
    revision = line.get("revision")
    if not isinstance(revision, str) or revision > HEAD:
        raise BadDump(f"the dump has schema {revision}, this Flywheel knows {HEAD} at most; update Flywheel")
    return revision


def _checked(lines: Iterable[bytes]) -> Iterator[Any]:
    """The values of all lines but the last, which is compared with them."""
    digest, rows, value = hashlib.sha256(), 0, None
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            raise BadDump(f"line {rows + 1} of the dump cannot be read; take another backup") from None
        if isinstance(value, dict) and "end" in value:
            break
        digest.update(line)
        rows += 1
        yield value
    if not isinstance(value, dict) or value.get("end") != {"rows": rows - 1, "sha256": digest.hexdigest()}:
        raise BadDump("the dump is cut off or was changed; take another backup")


def _fill(engine: Engine, values: Iterator[Any]) -> dict[str, int]:
    with engine.execution_options(writes=True).begin() as connection:
        metadata = MetaData()
        metadata.reflect(connection)
        tables = {table.name: table for table in metadata.sorted_tables if table.name != "alembic_version"}
        filled = [table.name for table in tables.values() if connection.execute(select(table).limit(1)).first()]
        if filled:
            raise StoreNotEmpty(f"the store already has rows in {', '.join(filled)}; load into an empty one")
        try:
            counts = _insert_all(connection, tables, values)
        except DBAPIError:
            raise BadDump("the dump holds a row that its database refuses; take another backup") from None
        if engine.dialect.name == "postgresql":
            for table in tables.values():
                _continue_numbers(connection, table)
    return counts


def _insert_all(connection: Connection, tables: dict[str, Table], values: Iterator[Any]) -> dict[str, int]:
    counts = dict.fromkeys(tables, 0)
    batch: list[dict[str, Any]] = []
    name = ""
    for value in values:
        try:
            table, row = tables[value["table"]], value["row"]
            parsed = {key: _typed(table, key, item, connection.dialect.name) for key, item in row.items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BadDump("the dump holds a row that fits no table; take another backup") from None
        if batch and (table.name != name or len(batch) >= BATCH):
            connection.execute(insert(tables[name]), batch)
            batch = []
        name = table.name
        batch.append(parsed)
        counts[name] += 1
    if batch:
        connection.execute(insert(tables[name]), batch)
    return counts


def _typed(table: Table, column: str, value: Any, dialect: str) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if value is not None and isinstance(table.columns[column].type, DateTime):
        moment = datetime.fromisoformat(value).astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect == "sqlite" else moment
    return value


def _continue_numbers(connection: Connection, table: Table) -> None:
    """PostgreSQL counts apart from the rows: let it go on after the highest number there is."""
    for column in table.primary_key.columns:
        sequence = connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        ).scalar_one()
        highest = connection.execute(select(func.max(column))).scalar_one()
        if sequence is not None and highest is not None:
            connection.execute(text("SELECT setval(:sequence, :value)"), {"sequence": sequence, "value": highest})
