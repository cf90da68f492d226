"""Checkpoints that survive a kill: one is only used when its manifest, written last, matches every file of it.

They live outside the pipeline's outputs (.flywheel/checkpoints/<stage>/<digest of all that shapes the training>),
because DVC deletes a stage's outputs before it runs.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tasks.files import ManifestError, verify_manifest, write_manifest

FINAL = "final"  # the folder with what the training gave, next to the checkpoints


def is_complete(folder: Path) -> bool:
    """Whether the folder has a manifest and holds exactly what it lists."""
    try:
        verify_manifest(folder)
    except (ManifestError, OSError):
        return False
    return True


def mark_complete(folder: Path) -> None:
    """Say that every process has written its part. Call it once, when all have."""
    write_manifest(folder)


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
