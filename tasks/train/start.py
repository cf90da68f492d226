"""Stage `start`: where training starts from, the base model or the adapter of an earlier champion.

With new feedback, and `feedback.start: champion`, a night goes on from the champion that its pointer names; otherwise
training starts from the base model. The candidate is judged against data/champion either way.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tasks import layout
from tasks.corpus.from_feedback import FeedbackPointer, read_feedback_pointer
from tasks.errors import FlywheelError
from tasks.files import fresh_directory, verify_manifest, write_json, write_manifest
from tasks.params import FeedbackParams, load_params
from tasks.registry.champion import Pointer, weights_of
from tasks.stage import run_stage

STAGE = "start"
ADAPTER = layout.START / "adapter"


class StartError(FlywheelError):
    """The adapter to go on from does not belong to the base model that is here."""


def starting_version(pointer: FeedbackPointer, settings: FeedbackParams) -> Pointer | None:
    """The version to go on from, or None for the base model."""
    if settings.start == "base" or pointer.count == 0 or pointer.start is None:
        return None
    return Pointer(kind="version", version=pointer.start.version, digest=pointer.start.digest)


def adapter_to_continue() -> Path | None:
    """The adapter that data/start holds, checked, or None where training starts from the base model."""
    verify_manifest(layout.START)
    return ADAPTER if ADAPTER.is_dir() else None


def start() -> str:
    """Write data/start; returns what happened, in a sentence.

    Raises:
        StartError: the version was trained over another base model.
    """
    version = starting_version(read_feedback_pointer(), load_params().feedback)
    base = verify_manifest(layout.BASE_MODEL)
    with fresh_directory(layout.START) as folder:
        if version is not None:
            package = weights_of(version)
            trained_over = json.loads((package / "base.json").read_text(encoding="utf-8"))["digest"]
            if trained_over != base:
                raise StartError(
                    f"version {version.version} is an adapter over another base model; set feedback.start: base"
                )
            shutil.copytree(package / "adapter", folder / "adapter")
        write_json(folder / "start.json", {"digest": version.digest if version else None})
        write_manifest(folder)
    return f"the adapter of version {version.version}" if version else "the base model"


if __name__ == "__main__":
    run_stage(STAGE, start)
