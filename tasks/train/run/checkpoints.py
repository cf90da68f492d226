"""Checkpoints that survive a kill: one is only used when its manifest, written last, matches every file of it.

They lie in .flywheel/checkpoints/<stage>/<digest of all that shapes the training>: DVC deletes a stage's outputs.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from tasks.core.errors import FlywheelError
from tasks.core.files import ManifestError, verify_manifest, write_manifest

REFUSED = "refused.txt"  # a worker's own words, where trying again cannot help
FINAL = "final"  # the folder with what the training gave, next to the checkpoints
KEPT_DAYS = 7.0  # of a run that ended without a result and that nothing goes on with
ROOM = 1.5  # times the last checkpoint must be free before the next is begun


class DiskFull(FlywheelError):
    """There is no room for another checkpoint."""


def is_complete(folder: Path) -> bool:
    """Whether it has a manifest and holds exactly what that lists. Raises OSError: it cannot be read."""
    try:
        return bool(verify_manifest(folder))
    except ManifestError:
        return False


def mark_complete(folder: Path) -> None:
    """Say that every process has written its part. The files reach the disk first, against a power cut."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
    write_manifest(folder)


def size_of(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_room(run: Path) -> None:
    """Is there room for a checkpoint of ROOM times the last one's size? Raises DiskFull: there is not."""
    written = sorted((path for path in run.glob("checkpoint-*") if step_of(path) >= 0), key=step_of)
    if not written:
        return
    needed, free = int(ROOM * size_of(written[-1])), shutil.disk_usage(run).free
    if free < needed:
        raise DiskFull(
            f"{run} has {free / 1e6:.0f} MB left and the next checkpoint needs {needed / 1e6:.0f} MB; "
            f"make room and run the stage again: it goes on from its last checkpoint"
        )


def step_of(folder: Path) -> int:
    """The optimiser step a checkpoint was taken at; -1 for any other folder."""
    found = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    return int(found.group(1)) if found else -1


def last_complete(run: Path) -> Path | None:
    """The latest complete checkpoint of a run. Incomplete ones are removed: they were being written at a kill."""
    for folder in sorted(run.glob("checkpoint-*"), key=step_of, reverse=True):
        if step_of(folder) >= 0 and is_complete(folder):
            return folder
        shutil.rmtree(folder)
    return None


def final_of(run: Path) -> Path | None:
    """What a run gave, if it came to its end; a half-written one is removed."""
    folder = run / FINAL
    if is_complete(folder):
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    return None


def forget(run: Path) -> None:
    """Remove a run whose result is in its place, and those of its stage that nobody came back to in `KEPT_DAYS`."""
    shutil.rmtree(run)
    for other in run.parent.iterdir():
        if other.is_dir() and time.time() - _last_written(other) > KEPT_DAYS * 86400:
            shutil.rmtree(other, ignore_errors=True)


def _last_written(folder: Path) -> float:
    """When anything in it was last written, in seconds of the clock; now, where that changes under our eyes."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except FileNotFoundError:
        return time.time()
