"""What a run costs: seconds a stage took before (for "time left"), and the peak memory of the process tree.

Kept in .flywheel/, outside every stage: nothing measured here may enter a stage's output.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json

DURATIONS = layout.HOME / "durations.json"
SAMPLE_SECONDS = 2.0


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


def tree_memory(root_process: int) -> int:
    """Bytes held by a process and all below it; pages shared between them are counted once (PSS) where Linux tells."""
    import psutil

    try:
        root = psutil.Process(root_process)
        family = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    return sum(_memory(process) for process in family)


def _memory(process: Any) -> int:
    import psutil

    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


class MemoryWatch:
    """Samples the memory of this process and all below it while the block runs; `peak` is in bytes."""

    def __init__(self) -> None:
        """Nothing is measured before the block is entered."""
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def _watch(self) -> None:
        while not self._done.is_set():
            self.peak = max(self.peak, tree_memory(os.getpid()))
            self._done.wait(SAMPLE_SECONDS)

    def __enter__(self) -> MemoryWatch:
        """Begin to measure."""
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop measuring."""
        self._done.set()
        self._thread.join(timeout=5)
