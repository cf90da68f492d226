"""A real registry: one database for a module, one registered model for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.registry.versions import Registry
from tasks.store.migrate import migrate
from tasks.store.store import Store
from tests.mlflow_store import lay_mlflow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the database."""
    return lay_mlflow(tmp_path_factory.mktemp("registry"))


@pytest.fixture
def registry(home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry of a model of this test's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Registry(request.node.name[:60], home)


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """A database beside the registry's."""
    url = f"sqlite:///{home / 'store.db'}"
    migrate(url)
    store = Store.open(url)
    yield store
    store.close()
