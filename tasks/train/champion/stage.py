"""Stage `champion`: what the candidate is judged against, laid out from state/champion.json.

The flow has fetched a version's package into .flywheel/weights/DIGEST; here it is checked and copied, and beside it the
version that its line is anchored at.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import MANIFEST, digest_of, fresh_directory, write_json, write_manifest
from tasks.core.package import read_package
from tasks.core.pointers import Pointer, PointerError, read_pointer, weights_of
from tasks.core.stage import run_stage


def base_digest() -> str:
    """The base model's digest, from its manifest alone (the stages that load the model check its files)."""
    path = layout.BASE_MODEL / MANIFEST
    try:
        return digest_of(json.loads(path.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError) as error:
        raise PointerError(f"{path} cannot be read ({error}); run the stage base_model again") from None


def champion() -> str:
    """Write data/champion; returns what happened, in a sentence."""
    pointer = read_pointer()
    facts: dict[str, Any] = pointer.model_dump(mode="json")
    if pointer.kind == "base":
        facts["digest"] = base_digest()
    with fresh_directory(layout.CHAMPION) as folder:
        if pointer.kind == "version":
            copy_package(weights_of(pointer), folder, base_digest(), pointer.version)
            if first := pointer.anchor:
                anchor = weights_of(Pointer(kind="version", version=first.version, digest=first.digest))
                copy_package(anchor, folder / layout.ANCHOR.name, base_digest(), first.version)
        write_json(folder / "champion.json", facts)
        write_manifest(folder)
    return "the base model" if pointer.kind == "base" else f"version {pointer.version}"


def copy_package(package: Path, folder: Path, base: str, version: str) -> None:
    """A package with all that it answers from. Raises PackageUnreadable; PointerError: its base model is not `base`."""
    if read_package(package).trained_over != base:
        raise PointerError(
            f"version {version}, the champion, was trained over another base model than {layout.BASE_MODEL} holds, so "
            "nothing can be measured against it here. Put its base model back into domain.yaml; or give the domain "
            "with the new one a name of its own: it begins without a champion"
        )
    shutil.copytree(package, folder, dirs_exist_ok=True)


if __name__ == "__main__":
    run_stage("champion", champion)
