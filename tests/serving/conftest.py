"""Fixtures of the gateway's tests; what they are made of is in gateways.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.gateways import Gateway, Stub, make_home, running, wait_for


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    engine = Stub().start()
    yield engine
    engine.kill()


@pytest.fixture
def home(tmp_path: Path, base_model: Path) -> Path:
    return make_home(tmp_path / "home", base_model)


@pytest.fixture(scope="module")
def gateway(stub: Stub, base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the tests of a module; it serves the base model."""
    place = make_home(tmp_path_factory.mktemp("gateway") / "home", base_model)
    with running(place, stub.url) as found:
        wait_for(lambda: found.service.ready()[0], what="readiness")
        yield found


@pytest.fixture
def plain(stub: Stub) -> Iterator[Stub]:
    """The stub engine, set back to how it began."""
    calm = {"first": 0.0, "between": 0.0, "tokens": 4, "break_after": None, "asked": [], "gone": 0}
    stub.behave(**calm)
    yield stub
    stub.behave(**calm)
