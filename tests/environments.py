"""What a test needs beyond the main environment: skipped where it is not built, but never in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.core import layout


def need_engine(root: Path) -> None:
    """Skip where the engine's environment is not built; fail in CI."""
    if (root / layout.ENGINE_PYTHON).exists():
        return
    missing = f"{layout.ENGINE_PYTHON} is missing: `make environments` builds it"
    if os.environ.get("CI"):
        pytest.fail(missing)
    pytest.skip(missing)
