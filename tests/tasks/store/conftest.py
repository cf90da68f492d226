"""Every test of the store runs on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tasks.store.answers import AnswerRecord
from tasks.store.identities import Identity, create_identity
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.answers import serve_answer
from tests.postgres import postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store/flywheel.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store."""
    migrate(url)
    opened = Store.open(url)
    yield opened
    opened.close()


@pytest.fixture
def anna(store: Store) -> Identity:
    """Somebody."""
    return create_identity(store, "anna", "chat")[0]


@pytest.fixture
def bo(store: Store) -> Identity:
    """Somebody else."""
    return create_identity(store, "bo", "chat")[0]


@pytest.fixture
def serve(store: Store) -> Callable[..., AnswerRecord]:
    """Store an answer for somebody, with one's own values for some fields."""
    return partial(serve_answer, store)
