"""A real Prefect server for the flow tests, started once, and projects to release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import EmbeddedServer
from tests.flows.project import Project, Released
from tests.flows.toy import make_toy
from tests.mlflow_store import lay_mlflow


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server of our own."""
    with EmbeddedServer(tmp_path_factory.mktemp("prefect")) as server:
        server.wait()
        yield server.api


@pytest.fixture(scope="session")
def released(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Made once a session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        project = Project(lay_mlflow(make_toy(tmp_path_factory.mktemp("released") / "toy")), prefect_api)
        return Released(project, project.release("--reason", "first"), project.last_run())


@pytest.fixture
def project(released: Released, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project of the test's own, after its first release."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return released.project.copied(tmp_path / "toy")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The project in miniature."""
    return make_toy(tmp_path / "toy")
