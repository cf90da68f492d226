"""The rows of a table or JSON file, as tests compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.corpus.reading.rows import read_rows


def fields(path: Path, content: str = "", **options: Any) -> list[dict[str, Any]]:
    """The fields of the rows that can be read."""
    if content:
        path.write_text(content, **options)
    return [row.fields for row in read_rows(path) if not row.cause]


def causes(path: Path) -> list[tuple[int, str]]:
    return [(row.number, row.cause) for row in read_rows(path) if row.cause]
