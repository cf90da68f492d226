"""A folder damaged in every way that one accident can: a byte of each file, a file gone, a file too many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def damages(folder: Path) -> Iterator[str]:
    """Damage the folder in one way after another, made good again in between; yields what was done."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert files
    for path in files:
        name, content = path.relative_to(folder), path.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            yield f"byte {at} of {name}"
        path.unlink()
        yield f"{name} removed"
        path.write_bytes(content)
    for more in ("more.txt", f"{files[0].parent.relative_to(folder)}/more.txt"):
        (folder / more).write_bytes(b"")
        yield f"{more} added"
        (folder / more).unlink()
