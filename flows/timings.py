"""Seconds that each stage took before, for "time left". Kept in .flywheel/: no duration may enter a stage's output."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path

from tasks.core import layout
from tasks.core.files import write_json

DURATIONS = layout.HOME / "durations.json"


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def read_durations(root: Path) -> dict[str, float]:
    """Stage → seconds its last real run took; empty where nothing is known."""
    with contextlib.suppress(OSError, ValueError):
        return {str(name): float(seconds) for name, seconds in json.loads((root / DURATIONS).read_text()).items()}
    return {}


def keep_duration(root: Path, name: str, seconds: float) -> None:
    """Remember how long a stage took."""
    write_json(root / DURATIONS, {**read_durations(root), name: round(seconds, 1)})


def seconds_left(waiting: Iterable[str], current: str, elapsed: float, known: dict[str, float]) -> float | None:
    """Seconds until the last of `waiting` and `current` should be done; None where a duration is not known."""
    names = list(waiting)
    if any(name not in known for name in [*names, current]):
        return None
    return max(0.0, known[current] - elapsed) + sum(known[name] for name in names)
