"""The digest of everything a release is made from, to tell whether there is anything new to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tasks import layout
from tasks.files import digest_of, sha256_file

SHAPING_FOLDERS = ("tasks", "infra/locks", "infra/accelerate", "infra/deepspeed")
SHAPING_FILES = ("params.yaml", "dvc.yaml", "state/feedback.json")
LEFT_OUT = {"__pycache__", ".DS_Store"}


def input_files(domain: str, root: Path = Path()) -> Iterator[Path]:
    """Every file that shapes a release of `domain`, relative to `root`: settings, code, locks, the domain's own."""
    for name in SHAPING_FILES:
        if (root / name).is_file():
            yield Path(name)
    for folder in (*SHAPING_FOLDERS, (layout.DOMAINS / domain).as_posix()):
        for path in sorted((root / folder).rglob("*")):
            relative = path.relative_to(root)
            if path.is_file() and not LEFT_OUT.intersection(relative.parts):
                yield relative


def inputs_digest(domain: str, root: Path = Path()) -> str:
    """The SHA-256 over name and content of every input file.

    The champion is no input: training starts from the base model.
    """
    return digest_of({path.as_posix(): sha256_file(root / path) for path in input_files(domain, root)})


def folder_digest(folder: Path) -> str | None:
    """The SHA-256 over name and content of every file below `folder`; None where it is missing."""
    if not folder.is_dir():
        return None
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return digest_of({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})
