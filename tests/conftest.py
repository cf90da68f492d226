"""Shared fixtures: a small model cut from the real one, and a repository to run stages in."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tasks.core import layout
from tests.training import two_layers

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(layout.OFFLINE)
settings.register_profile("ours", deadline=None)  # no test depends on the machine's load
settings.load_profile("ours")
# Servers of their own, or a model that computes: a test with one of these is slow, and `make test-fast` leaves it out.
HEAVY = {"postgres_server", "postgres_url", "prefect_api", "tiny_model"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts a server or runs a model, by its fixtures; other slow tests are marked themselves."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        if used & HEAVY or "[postgresql" in item.name or "-postgresql]" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def no_tracking_store_of_another_module() -> Iterator[None]:
    """MLflow puts the store it is pointed at into the environment, where the next module would find it."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of all the processes that run the tests of this session."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """The folder with what `make` writes into it; the process that comes first makes it, the others wait."""
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            half = target.with_suffix(".half")
            shutil.rmtree(half, ignore_errors=True)
            make(half)
            half.rename(target)
    return target


@pytest.fixture(scope="session")
def base_model(shared: Path) -> Path:
    """The default domain's real base model as its stage writes it, made once a session unless it lies in data/."""
    built = ROOT / layout.BASE_MODEL
    if (built / "MANIFEST.json").is_file():
        return built
    from tasks.core.domain import load_domain
    from tasks.train.base_model.stage import convert

    with contextlib.chdir(ROOT):
        return once(shared / "base_model", lambda target: convert(load_domain("construction"), target))


@pytest.fixture(scope="session")
def tiny_model(base_model: Path, shared: Path) -> Path:
    """The real base model cut down to its first two layers."""
    return once(shared / "tiny_model", lambda target: two_layers(base_model, target))
