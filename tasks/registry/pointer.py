"""The live step before a release: who is champion now, written down as a pointer that stages can depend on.

Reads the registry, so it runs in the flow and never in a stage. Only a release that is going to judge something may
call it: the pointer is an input of the graph.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import fresh_directory, holds, verify_manifest, write_json
from tasks.core.pointers import Pointer, read_pointer
from tasks.registry.runs import PACKAGE_ARTIFACT
from tasks.registry.versions import Registry, Version


class ChampionUnavailable(FlywheelError):
    """The registry's champion cannot be fetched whole."""


def refresh_pointer(registry: Registry, root: Path, night: int | None = None) -> Pointer:
    """Fetch the registry's champion into .flywheel/weights/DIGEST and point state/champion.json at it.

    Args:
        night: the number of the night that asks; None where anybody else does.

    Raises:
        ChampionUnavailable: its files are missing or differ from its manifest.
    """
    champion = registry.alias("champion")
    pointer = Pointer(kind="base", version="base", night=night)
    if champion is not None:
        fetch_weights(registry, champion, root)
        pointer = Pointer(kind="version", version=champion.number, digest=champion.manifest, night=night)
    return point(pointer, root)


def point(pointer: Pointer, root: Path) -> Pointer:
    """Write state/champion.json, unless it says the same already."""
    path = root / layout.CHAMPION_POINTER
    if not path.is_file() or read_pointer(root) != pointer:
        write_json(path, pointer.model_dump(mode="json"))
    return pointer


def fetch_weights(registry: Registry, version: Version, root: Path) -> Path:
    """The version's package under its digest, checked; what is there already is only checked."""
    target = root / layout.WEIGHTS / version.manifest
    if holds(target, version.manifest):
        return target
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = Path(registry.client.download_artifacts(version.run_id, PACKAGE_ARTIFACT, folder))
            digest = verify_manifest(found)
        except Exception as error:  # every artifact store fails in its own way
            raise ChampionUnavailable(f"version {version.number} cannot be fetched: {error}") from error
        if digest != version.manifest:
            raise ChampionUnavailable(f"version {version.number}: its files are not those it was registered with")
        _place(found, target)
    return target


def _place(found: Path, target: Path) -> None:
    with fresh_directory(target) as folder:
        shutil.copytree(found, folder, dirs_exist_ok=True)
