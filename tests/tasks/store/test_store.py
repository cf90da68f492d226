"""Opening, migrating and copying a store on both databases, and what becomes of the databases' own errors."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from tasks.store import ledger
from tasks.store.answers import FeedbackIn, ensure_conversation, feedback_on, get_answer, open_draft, record_feedback
from tasks.store.errors import StoreError, StoreOutdated, StoreUnavailable
from tasks.store.identities import authenticate, create_identity, list_identities
from tasks.store.migrate import configuration, copy_store, migrate
from tasks.store.nights import close_night, feedback_upto, last_nights, open_night
from tasks.store.schema import HEAD, AnswerRow, Base
from tasks.store.store import Store, database_url
from tests.postgres import PostgresServer


def setting(store: Store, statement: str) -> str:
    with store.read() as session:
        return str(session.execute(text(statement)).scalar_one())


def test_commits_wait_for_the_disk_on_both_databases(store: Store) -> None:
    if store.url.get_backend_name() == "sqlite":
        asked = {"PRAGMA journal_mode": "wal", "PRAGMA synchronous": "2", "PRAGMA foreign_keys": "1"}
    else:
        asked = {"SHOW synchronous_commit": "on", "SHOW timezone": "UTC"}
    assert {statement: setting(store, statement) for statement in asked} == asked


def test_a_server_that_does_not_wait_for_the_disk_is_told_to(postgres_url: str) -> None:
    migrate(postgres_url)
    opened = Store.open(postgres_url)
    with opened.write() as session:
        session.execute(text("ALTER ROLE postgres SET synchronous_commit = off"))
    opened.close()
    again = Store.open(postgres_url)
    try:
        assert setting(again, "SHOW synchronous_commit") == "on"
    finally:
        with again.write() as session:
            session.execute(text("ALTER ROLE postgres RESET synchronous_commit"))
        again.close()


def test_a_server_that_is_not_there_is_said_to_be_unavailable_without_its_password() -> None:
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
    with pytest.raises(StoreOutdated):
        Store.open(home=tmp_path)
    assert list(tmp_path.iterdir()) == []


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


def test_what_one_does_alone_no_other_does_meanwhile_and_other_things_go_on(store: Store) -> None:
    """One that fails lets go."""
    inside, most = [0], [0]

    def work(number: int) -> None:
        with contextlib.suppress(ValueError), store.alone("promotion"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1
            if number % 2:
                raise ValueError

    with ThreadPoolExecutor(8) as pool, store.alone("something else"):
        list(pool.map(work, range(16)))
    assert (most[0], inside[0]) == (1, 0)


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


def test_a_store_of_the_first_schema_is_brought_up_to_date_with_its_rows(url: str) -> None:
    """And is then what the typed tables say, as a new one is."""
    assert migrate(url) == migrate(url) == HEAD
    assert ScriptDirectory.from_config(configuration()).get_heads() == [HEAD]
    store = Store.open(url)
    columns = "number, domain, started_at, since, flow_run_id, reason, rows"
    with store.write() as session:
        session.execute(text("ALTER TABLE nights ADD COLUMN since BIGINT NOT NULL DEFAULT 0"))
        session.execute(text("ALTER TABLE answers DROP COLUMN passages"))
        for column in ("withdrawn_at", "accepted_at", "accepted_by", "other_words"):
            session.execute(text(f"ALTER TABLE feedback DROP COLUMN {column}"))
        session.execute(text("DROP TABLE forgotten"))
        session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
        session.execute(text(f"INSERT INTO nights ({columns}) VALUES (7, 'law', '2026-01-01', 0, '', '', 3)"))  # noqa: S608
    with pytest.raises(StoreOutdated, match="0001"):
        Store.open(url)
    migrate(url)
    assert [(night.number, night.rows) for night in last_nights(store, "law", 2)] == [(7, 3)]
    with store.read() as session:
        context = MigrationContext.configure(session.connection(), opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    assert_other_words_are_of_a_correction(store)
    with store.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    for newer in (Store.open, migrate):
        with pytest.raises(StoreOutdated, match="9999"):
            newer(url)


def assert_other_words_are_of_a_correction(store: Store) -> None:
    columns = "id, key, answer_id, identity_id, domain, created_at, other_words, kind"
    with pytest.raises(IntegrityError, match="other_words_of_correction"), store.write() as session:
        values = "'f', 'k', 'a', 'i', 'law', '2026-01-01', 'How?', 'comment'"
        session.execute(text(f"INSERT INTO feedback ({columns}) VALUES ({values})"))  # noqa: S608


def test_a_new_store_refuses_other_words_of_a_comment_as_an_upgraded_one_does(store: Store) -> None:
    assert_other_words_are_of_a_correction(store)


def test_starters_that_come_together_all_find_the_schema_made(url: str) -> None:
    with pytest.raises(StoreOutdated, match=r"python -m tasks\.store\.migrate"):
        Store.open(url)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: migrate(url), range(4))) == [HEAD] * 4
    Store.open(url).close()


def test_the_command_makes_the_embedded_store_for_its_owner_only(tmp_path: Path, root: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), "FLYWHEEL_ROOT": str(tmp_path)}
    command = [sys.executable, "-m", "tasks.store.migrate"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"the store's schema is {HEAD}\n"), done.stderr
    file = tmp_path / ".flywheel/store/flywheel.db"
    assert [path.stat().st_mode & 0o777 for path in (file, file.parent)] == [0o600, 0o700]


@pytest.fixture
def key(store: Store, serve: Callable[..., AnswerRow]) -> str:
    """A row in every table; returns the key of the one who gave them."""
    anna, key = create_identity(store, "anna", "chat")
    conversation = ensure_conversation(store, None, anna, "construction")
    draft = open_draft(store, conversation, "sample")
    left = serve(
        anna,
        id="left",
        conversation_id=conversation,
        draft_id=draft,
        position=0,
        text="<b>左</b> 😀\n'",
        passages=[{"text": "右", "score": 0.1}],
    )
    serve(anna, conversation_id=conversation, draft_id=draft, position=1)
    record_feedback(store, anna, FeedbackIn("k1", left.id, "choice"))
    night = open_night(store, "construction", "run")
    close_night(store, night.number, "promote", "better", "1")
    record_feedback(store, anna, FeedbackIn("k2", left.id, "correction", text='{"a": [1]}'))
    ledger.append(store, "construction", "promoted", "1", detail={"x": 0.1})
    ledger.ask(store, "construction", "1", "d", night.number)
    ledger.decide(store, "construction", "1", True, "bo", "fine")
    return key


@pytest.fixture
def target(url: str, store: Store, key: str) -> Iterator[Store]:
    """The other database, filled with a copy."""
    assert copy_store(store, url) == 1 + 1 + 1 + 2 + 1 + 2 + 1 + 1
    opened = Store.open(url)
    yield opened
    opened.close()


def test_a_copy_holds_everything_life_goes_on_in_it_and_it_is_not_copied_into(
    store: Store, target: Store, key: str
) -> None:
    anna = authenticate(target, key)
    assert anna is not None and get_answer(target, "left") == get_answer(store, "left")
    assert feedback_upto(target, "construction", 1) == feedback_upto(store, "construction", 1)
    assert ledger.entries(target, "construction") == ledger.entries(store, "construction")
    assert last_nights(target, "construction", 5) == last_nights(store, "construction", 5)
    assert ledger.question(target, "construction", "1") == ledger.question(store, "construction", "1")
    again, new = record_feedback(target, anna, FeedbackIn("k1", "left", "choice"))
    assert (again, new) == (feedback_on(store, "left")[0], False)
    third, new = record_feedback(target, anna, FeedbackIn("k3", "left", "thumb", thumb=-1))
    assert (third.seq, new) == (3, True)
    assert open_night(target, "construction", "run").rows == 2
    with pytest.raises(StoreError, match="identities"):
        copy_store(store, target.url.render_as_string(hide_password=False))
    assert len(feedback_on(target, "left")) == 3


def test_a_copy_is_one_moment_while_others_write(store: Store, key: str, tmp_path: Path) -> None:
    anna = authenticate(store, key)
    assert anna is not None
    written = []

    def when_the_first_table_was_read(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if "FROM identities" in statement and not written:
            written.append(record_feedback(store, anna, FeedbackIn("during", "left", "thumb", thumb=1)))

    event.listen(store._engine, "after_cursor_execute", when_the_first_table_was_read)
    copy_store(store, f"sqlite:///{tmp_path}/copy.db")
    event.remove(store._engine, "after_cursor_execute", when_the_first_table_was_read)
    copied = Store.open(f"sqlite:///{tmp_path}/copy.db")
    assert (len(feedback_on(copied, "left")), len(feedback_on(store, "left"))) == (2, 3)
    copied.close()
