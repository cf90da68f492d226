"""What stages read of the live systems: state/champion.json and state/feedback.json, each naming content by digest.

A flow step writes them (tasks/registry/pointer.py, flows/nightly.py); the content itself lies in .flywheel under its
digest and is checked before use.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from tasks.core import layout, package
from tasks.core.errors import FlywheelError
from tasks.core.files import ManifestError, verify_manifest
from tasks.core.records import Record, read_committed

SHA256 = re.compile(r"^[0-9a-f]{64}$")
ADAPTER = layout.START / package.ADAPTER
MODEL = layout.START / package.MODEL
REFERENCE = layout.START / "reference"
Renewal = Literal["", "forgotten", "drifted"]


class PointerError(FlywheelError):
    """state/champion.json is wrong, or what it points at is not here."""


class StartPoint(Record):
    """A version that something starts from: the training of a night, or the line that a champion ends."""

    version: str
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Pointer(Record):
    """state/champion.json; `night` is the number of the night that asks, null where a person or anything else does.

    `anchor` is the last version of the champion's line that showed its gain in a whole release, where that is another:
    what the nights since have lost together is measured against it. `spent`: of a night, criterion of the gate → how
    many nights since then have not passed it. `renewal`: why what follows the champion begins anew: it knows what was
    forgotten, or its line's last night was held by the anchor.
    """

    kind: Literal["base", "version"]
    version: str = Field(min_length=1)
    digest: str | None = None
    night: int | None = None
    anchor: StartPoint | None = None
    spent: dict[str, int] = Field(default_factory=dict)
    renewal: Renewal = ""

    @model_validator(mode="after")
    def _agree(self) -> Pointer:
        if self.kind == "version" and not (self.digest and SHA256.match(self.digest)):
            raise ValueError("a version's pointer needs the SHA-256 of its package")
        return self


def read_pointer(root: Path = Path()) -> Pointer:
    """The pointer of the project at `root`, checked. Raises PointerError: it is missing or malformed."""
    return read_committed(root / layout.CHAMPION_POINTER, Pointer, PointerError)


def weights_of(pointer: Pointer) -> Path:
    """The checked folder of a version's package. Raises PointerError: it is not here, or differs from its digest."""
    folder = layout.WEIGHTS / str(pointer.digest)
    try:
        digest = verify_manifest(folder)
    except ManifestError as error:
        raise PointerError(
            f"version {pointer.version}, the champion, is not whole here: {error}. `make run` fetches it "
            "from the registry"
        ) from None
    if digest != pointer.digest:
        raise PointerError(f"{folder} holds {digest}, not what its name says; delete it and run `make run`")
    return folder


class SnapshotError(FlywheelError):
    """state/feedback.json is wrong, or the snapshot it names is not whole here."""


class FeedbackPointer(Record):
    """state/feedback.json: a snapshot of all feedback up to the night `watermark`.

    Rows of nights after `since` are new: no champion has learnt them. `start` is the champion of that night. What is
    said in the nights `held` taught a version that a person rolled back, and is not learnt again. `origin` is the first
    version of the champion's line, which alignment is held to.
    """

    count: int = Field(ge=0)
    digest: str | None = None
    watermark: int | None = None
    since: int = 0
    held: tuple[int, ...] = ()
    start: StartPoint | None = None
    origin: StartPoint | None = None

    @model_validator(mode="after")
    def _agree(self) -> FeedbackPointer:
        if (self.count > 0) != (self.digest is not None and self.watermark is not None):
            raise ValueError("a snapshot with rows has a digest and a watermark, and one without has neither")
        return self


def read_feedback_pointer(root: Path = Path()) -> FeedbackPointer:
    """The pointer of the project at `root`, checked. Raises SnapshotError: it is missing or malformed."""
    return read_committed(root / layout.FEEDBACK_POINTER, FeedbackPointer, SnapshotError)


def adapter_to_continue() -> Path | None:
    """The adapter that data/start holds, checked, or None where training starts from the base model."""
    verify_manifest(layout.START)
    return ADAPTER if ADAPTER.is_dir() else None


def weights_to_continue() -> Path | None:
    """The whole weights that data/start holds, checked, or None where training starts from the base model."""
    verify_manifest(layout.START)
    return MODEL if MODEL.is_dir() else None


def goes_on() -> bool:
    """Whether training goes on from an earlier version."""
    return ADAPTER.is_dir() or MODEL.is_dir()
