"""The default domain, and how it gets another base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.base_model import BaseModelSource
from tasks.core.domain import Domain, load_domain

WithModel = Callable[..., Domain]


@pytest.fixture
def domain(root: Path, monkeypatch: pytest.MonkeyPatch) -> Domain:
    """The default domain, from the repository's root."""
    monkeypatch.chdir(root)
    return load_domain("construction")


@pytest.fixture
def with_model(domain: Domain) -> WithModel:
    """The default domain with an entry of its own for the base model."""

    def build(**entry: Any) -> Domain:
        return domain.model_copy(update={"base_model": BaseModelSource.model_validate(entry)})

    return build
