"""What a field of a row holds: a text, a list of texts, or nothing, however a program wrote that."""

from __future__ import annotations

import json
from typing import Any

from tasks.corpus.reading.cells import ErrorCell
from tasks.corpus.reading.lines import text_problem

NO_VALUE = ("", "nan", "NaN", "None", "NULL", "null", "N/A", "n/a", "#N/A", "<NA>")  # as programs write it


def field_of(row: Any, path: str) -> Any:
    """The value at a dotted path. Raises ValueError: there is none."""
    if isinstance(row, dict) and path in row:
        return row[path]  # a column may have a dot in its name
    value = row
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"field {path!r} is missing")
        value = value[part]
    return value


def is_absent(value: Any) -> bool:
    """Whether a value is none: null, blank, an error of a sheet, or a word for no value."""
    blank = isinstance(value, str) and value.strip() in NO_VALUE
    return blank or value in (None, [], {}) or isinstance(value, ErrorCell)


def needed_text(value: Any, name: str) -> str:
    """A text that has to be there. Raises ValueError: it is none, or empty, or holds what no text may hold."""
    if isinstance(value, ErrorCell):
        raise ValueError(f"field {name!r} holds the error {value}")
    if is_absent(value):
        word = f"; {value.strip()} is no value" if isinstance(value, str) and value.strip() else ""
        raise ValueError(f"field {name!r} must be a text that is not empty{word}")
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} must be a text, not {type(value).__name__}")
    if problem := text_problem(value):
        raise ValueError(f"field {name!r}: {problem}")
    return value.strip()


def number_as_text(value: Any) -> Any:
    """A number as a text; everything else as it is."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def optional_text(row: dict[str, Any], path: str) -> str:
    """What is not asked for, such as an input: a text, a number, or a list of them as lines; "" where it is missing."""
    return "\n".join(_items(row, path))


def _items(row: dict[str, Any], path: str) -> list[str]:
    try:
        value = field_of(row, path) if path else None
    except ValueError:
        return []
    values = value if isinstance(value, list) else [value]
    return [needed_text(number_as_text(one), path) for one in values if not is_absent(one)]


def texts_in(row: dict[str, Any], path: str) -> tuple[str, ...] | None:
    """A list of texts, or one text with semicolons between, a number as text; None where it holds something else."""
    try:
        items = _items(row, path)
    except ValueError:
        return None
    parts = items[0].split(";") if len(items) == 1 else items
    return tuple(part.strip() for part in parts if part.strip())


def listed(value: Any, name: str) -> Any:
    """A list that a table holds as JSON; everything else as it is. Raises ValueError: a text, and no JSON."""
    if not isinstance(value, str) or is_absent(value):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"field {name!r} is a text, and no JSON: {error}") from None
