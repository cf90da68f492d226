"""Rows of the files people keep questions and answers in: JSON, CSV and XLSX (table_rows.py), Parquet (columnar.py).

What cannot be a row says why; a mistake costs that row, in a JSON list the rest of it. Trailing commas are read, NaN is
no value, a list may stand within an object, and objects without a list on one line or several.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from tasks.core.domain import COLUMNAR
from tasks.corpus.reading.columnar import columnar_rows
from tasks.corpus.reading.columns import named
from tasks.corpus.reading.lines import EXCERPT, bounded_lines, open_text
from tasks.corpus.reading.table_rows import Row, SourceError, csv_rows, sheet_rows

__all__ = ["Row", "SourceError", "read_rows"]

FRAMED = (".csv", ".tsv", ".xlsx", *COLUMNAR)  # every row has the same columns
ENDINGS = (".jsonl", ".json", *FRAMED)
BLOCK = 65_536  # characters of a file, from which its form is told
MORE = "Extra data"  # as the json module calls what follows an object
BETWEEN = re.compile(r"[\s,]*")
# A comma behind the last value of an object or list; a string is passed over whole, closed or not.
TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*(?:"|$))|(?<=[\w"}\]]),(?=\s*[}\]])')
LIST_WITHIN = re.compile(r'"[^"]*"\s*:\s*\[\s*(?=\{)')  # an object's field that holds rows


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file with one of ENDINGS; raises SourceError for others and for unusable headers."""
    ending = path.suffix.casefold()
    if ending in (".jsonl", ".json"):
        return _list_rows(path) if _is_list(path) else _json_lines(path)
    if ending in (".csv", ".tsv"):
        return csv_rows(path)
    if ending == ".xlsx":
        return sheet_rows(path)
    if ending in COLUMNAR:
        return columnar_rows(path)
    raise SourceError(f"{path}: rows are read from {', '.join(ENDINGS[:-1])} and {ENDINGS[-1]}")


def unread(fields: dict[str, Any], read: Container[str]) -> list[str]:
    """The names of fields that hold something and are not among those that are read."""
    return [name for name, value in fields.items() if name not in read and value not in (None, "", [], {})]


def parsed(text: str) -> dict[str, Any]:
    """One JSON object, NaN and Infinity as null. Raises ValueError: not UTF-8, not JSON, too deep, or no object."""
    try:
        text.encode("utf-8", "surrogateescape").decode("utf-8")
        value = _decoder().decode(text.strip().rstrip(","))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        if error.msg == MORE or (mended := TRAILING_COMMA.sub(r"\1", text)) == text:
            raise
        return parsed(mended)
    if not isinstance(value, dict):
        raise ValueError(f"a row must be an object, not {type(value).__name__}")
    return value


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=lambda _: None)


def _json_lines(path: Path) -> Iterator[Row]:
    for line in bounded_lines(path):
        objects = [line.text] if line.text.strip() else []
        for text in objects:
            try:
                if line.cause:
                    raise ValueError(line.cause)
                yield Row(line.number, parsed(text), text[:EXCERPT])
            except ValueError as error:
                more = error if isinstance(error, json.JSONDecodeError) and error.msg == MORE else None
                if more and (rest := more.doc[more.pos :].lstrip(", \t")).startswith("{"):
                    objects += [more.doc[: more.pos], rest]
                else:
                    yield Row(line.number, text=text[:EXCERPT], cause=str(error))


def _is_list(path: Path) -> bool:
    """Whether a file is a list, an object around one or objects over lines; SourceError: .json that is neither."""
    filled = (line.text.strip() for line in bounded_lines(path) if line.text.strip())
    first = next(filled, "")
    if first.startswith("["):
        return True
    alone = next(filled, None) is None
    with contextlib.suppress(ValueError):
        row = parsed(first)
        return alone and [*map(_is_table, row.values())].count(True) == 1 and not named(row)
    with open_text(path) as stream:
        begin = stream.read(BLOCK).lstrip()
    try:
        row, end = _decoder().raw_decode(begin)
        return isinstance(row, dict) and (alone or not {"\r", "\n"}.isdisjoint(begin[:end]))
    except (ValueError, RecursionError) as error:
        if (alone or first == "{") and LIST_WITHIN.search(begin):
            return True
        if path.suffix.casefold() == ".jsonl":
            return False
        raise SourceError(f"{path}: neither a JSON list of rows nor JSON lines ({error})") from None


def _first_row(begin: str) -> int:
    """Where the first row stands: in a list, in the list of an object around it, or, without one, at the beginning."""
    text = begin.lstrip()
    if text.startswith("["):
        return begin.find("[") + 1
    with contextlib.suppress(ValueError, RecursionError):
        row, end = _decoder().raw_decode(text)
        if named(row) or not any(map(_is_table, row.values())) or text[end:].lstrip(", \t\r\n").startswith("{"):
            return 0
    within = LIST_WITHIN.search(begin)
    return within.end() if within else 0


def _is_table(value: Any) -> bool:
    """Whether a value is a list of rows; turns of a conversation are none."""
    rows = value if isinstance(value, list) else []
    return bool(rows) and all(isinstance(row, dict) and not row.keys() & {"role", "from"} for row in rows)


def _list_rows(path: Path) -> Iterator[Row]:
    decode = _decoder().raw_decode
    with open_text(path) as stream:
        text = stream.read()
    position, number = _first_row(text), 1
    alone = not position  # objects without a list around them end with the file
    while True:
        start = BETWEEN.match(text, position).end()  # type: ignore[union-attr]  # it matches nothing, too
        if text.startswith("]", start) or (alone and start == len(text)):
            if text[start + 1 :].strip("}, \t\r\n"):
                yield Row(number, text=text[start : start + EXCERPT], cause="what follows the list is not read")
            return
        try:
            value, position = decode(text, start)
        except (ValueError, RecursionError) as error:
            rest = text[start:]
            if not isinstance(error, RecursionError) and (fixed := TRAILING_COMMA.sub(r"\1", rest)) != rest:
                text, position = fixed, 0
                continue
            cause = "nested too deeply" if isinstance(error, RecursionError) else f"not JSON ({error})"
            yield Row(number, text=rest[:EXCERPT], cause=f"{cause}; the rest of the list is not read")
            return
        shown = text[start : min(position, start + EXCERPT)]
        if isinstance(value, dict):
            yield Row(number, value, shown)
        else:
            yield Row(number, text=shown, cause=f"a row must be an object, not {type(value).__name__}")
        number += 1
