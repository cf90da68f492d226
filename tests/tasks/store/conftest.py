"""Every test of the store runs on both databases; each database is made once, and emptied before each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from tasks.store.identities import create_identity
from tasks.store.migrate import migrate
from tasks.store.schema import AnswerRow, Base, Identity
from tasks.store.store import Store
from tests.answers import serve_answer
from tests.postgres import postgres_server, postgres_url, scratch_url

__all__ = ["postgres_server", "postgres_url", "scratch_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store/flywheel.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path_factory.mktemp('store')}/flywheel.db"
    else:
        address = request.getfixturevalue("postgres_server").new_database()
    migrate(address)
    opened = Store.open(address)
    yield opened
    opened.close()


@pytest.fixture
def store(shared_store: Store) -> Store:
    """An empty store, whose numbers begin at 1."""
    names = [table.name for table in reversed(Base.metadata.sorted_tables)]
    with shared_store.write() as session:
        if shared_store.url.get_backend_name() == "postgresql":
            session.execute(text(f"TRUNCATE {', '.join(names)} RESTART IDENTITY"))
        else:
            for name in (*names, "sqlite_sequence"):
                session.execute(text(f"DELETE FROM {name}"))  # noqa: S608
    return shared_store


@pytest.fixture
def anna(store: Store) -> Identity:
    """Somebody."""
    return create_identity(store, "anna", "chat")[0]


@pytest.fixture
def bo(store: Store) -> Identity:
    """Somebody else."""
    return create_identity(store, "bo", "chat")[0]


@pytest.fixture
def serve(store: Store) -> Callable[..., AnswerRow]:
    """Store an answer for somebody, with one's own values for some fields."""
    return partial(serve_answer, store)
