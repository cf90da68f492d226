"""What this process says of its training, each test's own."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.train.run import heartbeat


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the process's beat would say, whatever was trained in it before."""
    fresh = {"phase": "starting", "moves": 0, "step": 0, "steps": 0, "longest": 0.0, "training": 0.0}
    for name, value in (("_noted", fresh), ("_moved", 0.0), ("_beat", None)):
        monkeypatch.setattr(heartbeat, name, value)
    return heartbeat._noted
