"""Stage `start`: where training starts from, the base model or an earlier champion: its adapter, or its weights.

With new feedback, and `feedback.start: champion`, a night goes on from the champion that its pointer names. Beside it
lies what alignment is held to, the first version of the champion's line, where that is another one.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import fresh_directory, verify_manifest, write_json, write_manifest
from tasks.core.package import read_package
from tasks.core.params import FeedbackParams, load_params
from tasks.core.pointers import REFERENCE, FeedbackPointer, Pointer, read_feedback_pointer, weights_of
from tasks.core.stage import run_stage


class StartError(FlywheelError):
    """The version to go on from was not made from the base model that is here, or cannot be gone on from."""


def starting_version(pointer: FeedbackPointer, settings: FeedbackParams) -> Pointer | None:
    """The version to go on from, or None for the base model."""
    if settings.start == "base" or pointer.count == 0 or pointer.start is None:
        return None
    return Pointer(kind="version", version=pointer.start.version, digest=pointer.start.digest)


def start() -> str:
    """Write data/start; returns what happened. Raises StartError: the version cannot be gone on from."""
    pointer = read_feedback_pointer()
    version = starting_version(pointer, load_params().feedback)
    base, what = verify_manifest(layout.BASE_MODEL), ""
    with fresh_directory(layout.START) as folder:
        if version is not None:
            if read_package(weights_of(version)).trained_over != base:
                raise StartError(
                    f"version {version.version} was trained over another base model; set feedback.start: base"
                )
            what = _copy_part(version, folder)
            if pointer.origin is not None and pointer.origin.digest != version.digest:
                origin = Pointer(kind="version", version=pointer.origin.version, digest=pointer.origin.digest)
                _copy_part(origin, folder / REFERENCE.name)
        write_json(folder / "start.json", {"digest": version.digest if version else None})
        write_manifest(folder)
    return f"the {what} of version {version.version}" if version else "the base model"


def _copy_part(version: Pointer, folder: Path) -> str:
    """Adapter or weights, whichever the version is served as; its name."""
    package = read_package(weights_of(version))
    if not package.servable:
        raise StartError(
            f"version {version.version} cannot be gone on from ({package.kind.why}); set feedback.start: base"
        )
    found = package.adapter or package.model
    if found is not None:  # read_package finds one of the two at least
        shutil.copytree(found, folder / found.name)
    return package.kind.served_as


if __name__ == "__main__":
    run_stage("start", start)
