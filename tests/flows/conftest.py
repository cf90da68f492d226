"""A real Prefect server for the flow tests, started once, and projects to release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import EmbeddedServer
from tests.flows.toy import make_toy


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server of our own."""
    with EmbeddedServer(tmp_path_factory.mktemp("prefect")) as server:
        server.wait()
        yield server.api


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The project in miniature."""
    return make_toy(tmp_path / "toy")
