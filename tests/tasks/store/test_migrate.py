"""The schema goes up, down and up again on both databases, and is what the models say."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from tasks.store.address import database_url, make_engine
from tasks.store.errors import StoreOutdated
from tasks.store.migrate import configuration, migrate
from tasks.store.nights import last_nights
from tasks.store.schema import HEAD, Base
from tasks.store.store import Store

TABLES = {"identities", "conversations", "drafts", "answers", "nights", "feedback", "ledger", "approvals"}


def tables(url: str) -> set[str]:
    engine = make_engine(database_url(url))
    try:
        return set(inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def test_the_migrated_schema_is_what_the_models_say(url: str, tmp_path: Path) -> None:
    """compare_metadata does not look at checks and partial indexes: a schema made from the models has the same ones."""
    assert migrate(url) == migrate(url) == HEAD
    assert tables(url) == TABLES
    engine = make_engine(database_url(url))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    migrated = facts(engine)
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    assert facts(engine) == migrated
    assert len(migrated) > 20
    engine.dispose()


def facts(engine: object) -> set[tuple[str, ...]]:
    seen = inspect(engine)
    found = {(name, "check", str(c["name"]), c["sqltext"]) for name in TABLES for c in seen.get_check_constraints(name)}
    for name in TABLES:
        for index in seen.get_indexes(name):
            where = sorted((key, str(value)) for key, value in index["dialect_options"].items())
            found.add((name, "index", str(index["name"]), str(index["unique"]), str(where)))
        found |= {(name, "key", str(k["name"]), str(k["options"])) for k in seen.get_foreign_keys(name)}
    return found


def test_the_head_that_code_knows_is_the_newest_migration() -> None:
    assert ScriptDirectory.from_config(configuration()).get_heads() == [HEAD]


def test_a_store_of_the_first_schema_is_brought_up_to_date_with_its_rows(url: str) -> None:
    migrate(url, revision="0001")
    engine = make_engine(database_url(url))
    columns = "number, domain, started_at, since, flow_run_id, reason, rows"
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO nights ({columns}) VALUES (7, 'law', '2026-01-01', 0, '', '', 3)"))  # noqa: S608
    engine.dispose()
    with pytest.raises(StoreOutdated, match="0001"):
        Store.open(url)
    migrate(url)
    store = Store.open(url)
    assert [(night.number, night.rows) for night in last_nights(store, "law", 2)] == [(7, 3)]
    store.close()


def test_starters_that_come_together_all_find_the_schema_made(url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: migrate(url), range(4))) == [HEAD] * 4
    assert tables(url) == TABLES


def test_a_store_that_was_never_made_says_how_to_make_it(url: str) -> None:
    with pytest.raises(StoreOutdated, match=r"python -m tasks\.store\.migrate"):
        Store.open(url)


def test_a_schema_of_newer_code_is_refused_and_left_alone(url: str) -> None:
    migrate(url)
    store = Store.open(url)
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreOutdated, match="9999"):
        Store.open(url)
    with pytest.raises(StoreOutdated, match="9999"):
        migrate(url)


def test_opening_a_store_that_is_not_there_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLYWHEEL_DATABASE_URL", raising=False)
    with pytest.raises(StoreOutdated):
        Store.open(home=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_the_embedded_store_for_its_owner_only(tmp_path: Path, root: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "FLYWHEEL_ROOT": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tasks.store.migrate"], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"the store's schema is {HEAD}\n"), done.stderr
    file = tmp_path / ".flywheel/store/flywheel.db"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
