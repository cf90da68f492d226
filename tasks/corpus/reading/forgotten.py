"""What was forgotten, as state/forgotten.json tells it to the stages: SHA-256 hashes of names, and of nothing else.

A name is the id of an example, the id of a feedback row, or a source as records name it: "faq", "faq/7",
"letters/a.pdf#0-344", "graph/edges.csv:2". Who forgets a source forgets its parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import sha256_bytes

FORGOTTEN = layout.STATE / "forgotten.json"
REASON = "forgotten"
SHA256 = re.compile("[0-9a-f]{64}")


class ForgottenUnreadable(FlywheelError):
    """state/forgotten.json is no list of hashes."""


@dataclass(frozen=True)
class Forgotten:
    """Tells whether a name, or a whole that it is a part of, was forgotten."""

    hashes: frozenset[str] = frozenset()

    def __call__(self, *names: str) -> bool:
        """Whether any of the names was."""
        return bool(self.hashes) and any(one in self.hashes for name in names for one in hashes_of(name))


def hashes_of(name: str) -> Iterator[str]:
    """The SHA-256 of a name, and of every whole that it is a part of: of "faq/7" also that of "faq"."""
    for end in (*(found.start() for found in re.finditer("[/#:]", name)), len(name)):
        yield sha256_bytes(name[:end].encode())


def read_forgotten(root: Path = Path()) -> Forgotten:
    """What the project at `root` has forgotten; without the file nothing. Raises ForgottenUnreadable."""
    path = root / FORGOTTEN
    try:
        hashes = json.loads(path.read_text(encoding="utf-8") or "[]") if path.is_file() else []
        if not all(SHA256.fullmatch(one) for one in hashes):
            raise ValueError("an entry is no SHA-256")
    except (ValueError, TypeError) as error:
        raise ForgottenUnreadable(f"{path}: {error}; `git checkout -- {FORGOTTEN}` brings it back") from None
    return Forgotten(frozenset(hashes))
