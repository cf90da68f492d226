"""Crash-safe files: everything is written under a temporary name and renamed; manifests come last.

A directory that crosses a stage or a machine carries MANIFEST.json, the SHA-256 of every file in it. Its own digest is
that of the manifest's canonical text: equal content, equal digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError

MANIFEST = "MANIFEST.json"


class ManifestError(FlywheelError):
    """A directory's content differs from its manifest, or it has none."""


def sha256_bytes(content: bytes) -> str:
    """The SHA-256 of `content`, in hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file, in hex, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON that is equal for equal values: sorted keys, no spaces, no NaN, characters as they are."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def digest_of(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON."""
    return sha256_bytes(canonical_json(value).encode())


def folder_digest(folder: Path) -> str | None:
    """The SHA-256 over name and content of every file below `folder`; None where it is missing."""
    if not folder.is_dir():
        return None
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return digest_of({path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def write_text(path: Path, text: str) -> None:
    """Write `text` whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write `content` whole or not at all: a reader sees the old file or the new one, also after a power cut.

    `mode`: who may read and write it, less what the process's umask takes away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys; NaN and infinities are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Yield an empty directory beside `path`, gone when the block ends unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def take_place(directory: Path, target: Path) -> None:
    """Rename a whole directory to `target`, in place of what is there."""
    if target.exists():
        shutil.rmtree(target)
    directory.replace(target)


@contextmanager
def fresh_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary directory that takes the place of `path` when the block ends without error."""
    with scratch_directory(path) as temporary:
        yield temporary
        take_place(temporary, path)


def _listing(directory: Path, links: Collection[str] = ()) -> dict[str, str]:
    """Relative path → SHA-256 of each file, the manifest itself left out. A symbolic link not in `links` is refused."""
    listing: dict[str, str] = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() and path.relative_to(directory).as_posix() not in links:
            raise ManifestError(f"{path}: a symbolic link cannot be part of a manifest")
        if path.is_file() and path != directory / MANIFEST:
            listing[path.relative_to(directory).as_posix()] = sha256_file(path)
    return listing


def write_manifest(directory: Path, links: Collection[str] = ()) -> str:
    """Write MANIFEST.json over everything in `directory`; returns the directory's digest.

    `links`: files that may be symbolic links, as large weights that are not copied are. What counts is the content, so
    links and copies of the same files have one digest.
    """
    listing = _listing(directory, links)
    if not listing:
        raise ManifestError(f"{directory}: nothing to list in a manifest")
    write_json(directory / MANIFEST, {"files": listing, **({"links": sorted(links)} if links else {})})
    return digest_of(listing)


def verify_manifest(directory: Path) -> str:
    """Check every file of `directory` against its manifest; returns the directory's digest.

    Raises ManifestError: no manifest, or a file that is missing, changed or not listed; all of them are named.
    """
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        listed: dict[str, str] = manifest["files"]
        links: list[str] = manifest.get("links", [])
    except FileNotFoundError:
        raise ManifestError(f"{path} is missing: the directory was not finished; build it again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path} cannot be read ({error}); build the directory again") from None
    found = _listing(directory, links)
    problems = [f"missing: {name}" for name in sorted(listed.keys() - found.keys())]
    problems += [f"not listed: {name}" for name in sorted(found.keys() - listed.keys())]
    problems += [f"changed: {name}" for name in sorted(listed.keys() & found.keys()) if listed[name] != found[name]]
    if problems:
        raise ManifestError(f"{directory} does not match its manifest ({'; '.join(problems)})")
    return digest_of(listed)


def holds(directory: Path, digest: str) -> bool:
    """Whether a directory is here, whole, and has this digest."""
    try:
        return verify_manifest(directory) == digest
    except (ManifestError, OSError):
        return False
