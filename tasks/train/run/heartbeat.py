"""Signs of life of the worker processes, so that a stopped or hung one is noticed while the others wait for it.

Every process rewrites RUN/beats/<rank>.json, in place and of one size (a full disk silences nobody), at each step and
every two seconds; the stage counts the time since it last saw a change, so no clock is in common. Limits: a thread that
holds Python's lock for longer than SILENT_SECONDS outside of a save counts as dead.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BEAT_SECONDS = 2.0
SILENT_SECONDS = 20.0  # of a process that trains; noticed within 30 s with room for a slow file system
PATIENT_SECONDS = 1800.0  # of one that loads, compiles or saves: a library may hold Python's lock all the while
STUCK_SECONDS = 900.0  # without a step or an evaluated batch while all are alive; loading and judging take any time
STUCK_FACTOR = 20.0  # or this many times the longest that any step took
SIZE = 512  # bytes of a file

# What this process's training has come to; one process trains once.
_noted: dict[str, Any] = {"phase": "starting", "moves": 0, "step": 0, "steps": 0, "longest": 0.0, "training": 0.0}
_moved = 0.0
_beat: Callable[[], None] | None = None  # of this process, once it has begun
_writing = threading.Lock()  # the thread's beat must not be written over a later one


def note(phase: str, step: int = 0, steps: int = 0) -> None:
    """Say that the training moved on. `phase` is training, saving or ending."""
    global _moved
    now = time.monotonic()
    if _noted["phase"] == phase == "training":
        _noted["longest"] = max(_noted["longest"], now - _moved)
    if _noted["phase"] in ("training", "saving"):
        _noted["training"] += now - _moved
    _noted.update(phase=phase, moves=_noted["moves"] + 1, step=step or _noted["step"], steps=steps or _noted["steps"])
    _moved = now
    if _beat is not None:
        _beat()


def begin(run: Path, rank: int) -> Callable[[], None]:
    """Start the beat of this process; what is returned writes the last one."""
    folder = run / "beats"
    folder.mkdir(parents=True, exist_ok=True)
    global _beat
    file = os.open(folder / f"{rank}.json", os.O_WRONLY | os.O_CREAT, 0o644)

    def beat() -> None:
        with _writing:
            content = {"rank": rank, "pid": os.getpid(), "beat": time.monotonic(), **_noted, **memory()}
            os.pwrite(file, json.dumps(content).ljust(SIZE).encode(), 0)

    def forever() -> None:
        while True:
            beat()
            time.sleep(BEAT_SECONDS)

    _beat = beat
    beat()
    threading.Thread(target=forever, name="beats", daemon=True).start()
    return beat


def memory() -> dict[str, int]:
    """Peak memory of this process in bytes: resident, and on its GPU where it uses one."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # None while torch is being imported
    used = cuda is not None and getattr(cuda, "is_initialized", bool)()
    return {
        "peak_bytes": int(found.group(1)) * 1024 if found else 0,
        "peak_gpu_bytes": int(cuda.max_memory_reserved()) if cuda is not None and used else 0,
    }


def clear(run: Path) -> None:
    """Forget the beats of an earlier attempt."""
    for path in (run / "beats").glob("*.json"):
        path.unlink()


def read(run: Path) -> dict[int, dict[str, Any]]:
    """The last beat of each rank; one that is just being written is left out."""
    found = {}
    for path in (run / "beats").glob("*.json"):
        try:
            beat = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        found[int(path.stem)] = beat
    return found


class Watch:
    """The stage's eye on its workers: `look` every second or so."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._changed: dict[int, tuple[float, float]] = {}  # rank: its last beat, and when we saw it
        self._moves = 0
        self._moved = time.monotonic()

    def look(self) -> str | None:
        """Why the workers should be ended and started again; None while they are well."""
        now = time.monotonic()
        beats = read(self._run)
        for rank, beat in sorted(beats.items()):
            if beat["beat"] != self._changed.get(rank, (None, now))[0]:
                self._changed[rank] = (beat["beat"], now)
            silent = now - self._changed[rank][1]
            if silent > (SILENT_SECONDS if beat["phase"] == "training" else PATIENT_SECONDS):
                return f"process {rank} has given no sign of life for {silent:.0f} s"
        return self._stuck(now, list(beats.values()))

    def _stuck(self, now: float, beats: list[dict[str, Any]]) -> str | None:
        moves = sum(beat["moves"] for beat in beats)
        if moves != self._moves:
            self._moves, self._moved = moves, now
        longest = max((beat["longest"] for beat in beats), default=0.0)
        training = any(beat["phase"] == "training" for beat in beats)
        if training and now - self._moved > max(STUCK_SECONDS, STUCK_FACTOR * longest):
            return f"no process has moved on for {now - self._moved:.0f} s"
        return None
