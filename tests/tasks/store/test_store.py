"""Opening, and what becomes of the databases' own errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from tasks.store.address import database_url
from tasks.store.errors import BadValue, StoreError, StoreUnavailable
from tasks.store.feedback import FeedbackIn, record_feedback
from tasks.store.identities import create_identity, list_identities
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.postgres import PostgresServer


def setting(store: Store, statement: str) -> str:
    with store.read() as session:
        return str(session.execute(text(statement)).scalar_one())


def test_commits_wait_for_the_disk_on_both_databases(store: Store) -> None:
    if store.url.get_backend_name() == "sqlite":
        assert setting(store, "PRAGMA journal_mode") == "wal"
        assert setting(store, "PRAGMA synchronous") == "2"
        assert setting(store, "PRAGMA foreign_keys") == "1"
    else:
        assert setting(store, "SHOW synchronous_commit") == "on"
        assert setting(store, "SHOW timezone") == "UTC"


def test_a_server_that_does_not_wait_for_the_disk_is_told_to(postgres_url: str) -> None:
    migrate(postgres_url)
    opened = Store.open(postgres_url)
    with opened.write() as session:
        session.execute(text("ALTER ROLE postgres SET synchronous_commit = off"))
    opened.close()
    try:
        again = Store.open(postgres_url)
        assert setting(again, "SHOW synchronous_commit") == "on"
        with again.write() as session:
            session.execute(text("ALTER ROLE postgres RESET synchronous_commit"))
        again.close()
    finally:
        opened.close()


def test_a_server_that_is_not_there_is_said_to_be_unavailable_without_its_password(store: Store) -> None:
    assert store.ready()
    with pytest.raises(StoreUnavailable, match="cannot be reached") as away:
        Store.open("postgresql+psycopg://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(StoreError) as unread:
        database_url("://secret@")
    assert "secret" not in str(away.value) + str(unread.value)


@pytest.mark.parametrize("wrong", ["mysql://x/y", "not a url", "sqlite://", "sqlite:///:memory:"])
def test_a_database_that_we_do_not_run_on_is_refused(wrong: str) -> None:
    with pytest.raises(StoreError, match="sqlite:///FILE"):
        database_url(wrong)


def test_the_url_comes_from_the_argument_then_the_environment_then_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWHEEL_DATABASE_URL", "postgresql://host/base")
    assert str(database_url("sqlite:////x/y.db", tmp_path)) == "sqlite:////x/y.db"
    assert str(database_url(None, tmp_path)) == "postgresql+psycopg://host/base"
    assert database_url("sqlite:///y.db", tmp_path).database == str(tmp_path / "y.db")
    monkeypatch.delenv("FLYWHEEL_DATABASE_URL")
    assert database_url(None, tmp_path).database == str(tmp_path / ".flywheel/store/flywheel.db")
    monkeypatch.setenv("FLYWHEEL_ROOT", str(tmp_path / "root"))
    assert database_url().database == str(tmp_path / "root/.flywheel/store/flywheel.db")


def test_a_number_that_no_column_holds_is_refused_by_name(store: Store) -> None:
    with pytest.raises(BadValue, match="range"), store.write() as session:
        session.execute(text("INSERT INTO nights (number) VALUES (:n)"), {"n": 2**70})


def test_a_killed_writer_leaves_no_lock_behind(url: str) -> None:
    """The process dies inside its transaction; the next writer is not kept waiting and finds nothing of it."""
    migrate(url)
    script = (
        "import os, sys; from sqlalchemy import text; from tasks.store.store import Store\n"
        "with Store.open(sys.argv[1]).write() as session:\n"
        '    session.execute(text("INSERT INTO ledger (domain, event, actor, reason, created_at)'
        " VALUES ('x', 'night', '', '', '2026-01-01')\"))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, url], check=False).returncode == -9
    store = Store.open(url)
    create_identity(store, "anna", "chat")
    assert setting(store, "SELECT count(*) FROM ledger") == "0"
    store.close()


def test_a_store_survives_a_crash_and_restart_of_its_server(postgres_server: PostgresServer, postgres_url: str) -> None:
    migrate(postgres_url)
    store = Store.open(postgres_url)
    anna, _ = create_identity(store, "anna", "chat")
    postgres_server.kill()
    try:
        with pytest.raises(StoreUnavailable):
            record_feedback(store, anna, FeedbackIn("k", "a", "thumb", thumb=1))
        assert not store.ready()
    finally:
        postgres_server.start()
    assert store.ready()
    assert [known.name for known in list_identities(store)] == ["anna"]
    store.close()
