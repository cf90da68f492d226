"""Where training starts from, as data/start holds it: the base model, or an earlier champion's adapter or weights."""

from __future__ import annotations

from pathlib import Path

from tasks.core import layout, package
from tasks.core.files import verify_manifest

ADAPTER = layout.START / package.ADAPTER
MODEL = layout.START / package.MODEL
REFERENCE = layout.START / "reference"


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
