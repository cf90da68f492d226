"""The digest of our own code: what a checkpoint, a kept score or a cached file was made by."""

from __future__ import annotations

from pathlib import Path

from tasks.core.files import digest_of, sha256_file

TASKS = Path(__file__).parents[1]
LEFT_OUT = {"__pycache__", ".DS_Store"}


def code_digest(*folders: str) -> str:
    """SHA-256 over name and content of every file in these folders of tasks/, as dvc.yaml names them for a stage.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    found: dict[str, str] = {}
    for folder in folders:
        if not (TASKS / folder).is_dir():
            raise FileNotFoundError(f"{TASKS / folder} is no folder of ours")
        paths = (path for path in (TASKS / folder).rglob("*") if not LEFT_OUT.intersection(path.parts))
        found |= {path.relative_to(TASKS).as_posix(): sha256_file(path) for path in paths if path.is_file()}
    return digest_of(found)
