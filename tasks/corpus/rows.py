"""Rows of the files people keep questions and answers in: JSON lines, a JSON list, CSV, XLSX; one row in memory.

Each row says where it stands, and what cannot be a row says why. A mistake in one row of JSON lines or CSV costs
that row; behind a mistake in a JSON list nothing can be told apart, so the rest of the list is given up, and said so.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.corpus.lines import EXCERPT, MAX_LINE_BYTES, Line, archive_problem, bounded_lines
from tasks.errors import FlywheelError

BLOCK = 65_536  # characters of a JSON list read at a time
BETWEEN = re.compile(r"[\s,]*")
DELIMITERS = ",;\t|"


class SourceError(FlywheelError):
    """A file of a source has not the form that domain.yaml says, or none that can be read."""


@dataclass(frozen=True)
class Row:
    """One row: its line (of JSON lines or CSV), number (in a list) or row (of a sheet), from 1, and its fields.

    Where `cause` is set the row could not be read, and `text` shows what stands there.
    """

    number: int
    fields: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    cause: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its ending: .jsonl, .json, .csv, .tsv or .xlsx.

    Raises:
        SourceError: another ending, or a table without a usable header.
    """
    ending = path.suffix.casefold()
    if ending == ".jsonl" or (ending == ".json" and not _is_list(path)):
        return _json_lines(path)
    if ending == ".json":
        return _list_rows(path)
    if ending in (".csv", ".tsv"):
        return _csv_rows(path)
    if ending == ".xlsx":
        return _sheet_rows(path)
    raise SourceError(f"{path}: rows are read from .jsonl, .json, .csv, .tsv and .xlsx")


def parsed(raw: bytes) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ValueError: it is not UTF-8, not JSON, nested too deeply, or not an object.
    """
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"a row must be an object, not {type(value).__name__}")
    return value


def _json_lines(path: Path) -> Iterator[Row]:
    for line in bounded_lines(path):
        if not line.raw.strip():
            continue
        text = line.raw[:EXCERPT].decode("utf-8", errors="replace")
        try:
            if line.cause:
                raise ValueError(line.cause)
            yield Row(line.number, parsed(line.raw), text)
        except ValueError as error:
            yield Row(line.number, text=text, cause=str(error))


def _is_list(path: Path) -> bool:
    first = next((line.raw.strip() for line in bounded_lines(path) if line.raw.strip()), b"")
    if first.startswith(b"["):
        return True
    try:
        parsed(first)
    except ValueError:
        raise SourceError(f"{path}: neither a JSON list of rows nor JSON lines") from None
    return False


def _list_rows(path: Path) -> Iterator[Row]:
    """The objects of one JSON list, decoded as they come; an element is held whole, the list never."""
    decode = json.JSONDecoder().raw_decode
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as stream:
        buffer = stream.read(BLOCK)
        position, number = buffer.find("[") + 1, 1
        while True:
            start = BETWEEN.match(buffer, position).end()  # type: ignore[union-attr]  # it matches nothing, too
            try:
                value, position = decode(buffer, start)
            except (ValueError, RecursionError) as error:
                rest = buffer[start:]
                more = stream.read(BLOCK) if len(rest) <= MAX_LINE_BYTES else ""
                if more and not isinstance(error, RecursionError):
                    buffer, position = rest + more, 0
                    continue
                if rest.strip() != "]":
                    yield Row(
                        number, text=rest[:EXCERPT], cause=f"{_list_cause(error)}; the rest of the list is not read"
                    )
                return
            text = buffer[start : min(position, start + EXCERPT)]
            if isinstance(value, dict):
                yield Row(number, value, text)
            else:
                yield Row(number, text=text, cause=f"a row must be an object, not {type(value).__name__}")
            number += 1


def _list_cause(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"not JSON, or more than {MAX_LINE_BYTES:,} characters ({error})"


class _CsvLines:
    """Lines for csv.reader, which must be text: broken bytes become surrogates, which a row's check then finds."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.causes: dict[int, str] = {}  # line → why its row cannot be used

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if line.cause:
            self.causes[line.number] = line.cause
        return line.raw.decode("utf-8", errors="surrogateescape") + "\n"


def _csv_rows(path: Path) -> Iterator[Row]:
    """Rows below a header, with the delimiter that cuts the header into the most columns; quotes may hold lines."""
    lines = _CsvLines(bounded_lines(path))
    first = next(lines, "")
    delimiter = max(DELIMITERS, key=first.count)
    header = _header(path, next(csv.reader([first], delimiter=delimiter), []), lines.causes.get(1, ""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begin = reader.line_num + 2  # the header was line 1
        try:
            values, cause = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            values, cause = [], f"not CSV: {error}"
        end = reader.line_num + 1
        cause = next((lines.causes[line] for line in range(begin, end + 1) if line in lines.causes), cause)
        if cause and end > begin:
            cause = f"lines {begin} to {end}: {cause}"
        yield from _table_row(begin, header, values, cause)


def _sheet_rows(path: Path) -> Iterator[Row]:
    """Rows of the first sheet, below its first row; numbers and dates as text, formulas by their stored value."""
    if problem := archive_problem(path):
        raise SourceError(f"{path}: {problem}")
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # the parser raises whatever it meets in a damaged archive
        raise SourceError(f"{path}: not readable as XLSX ({error})") from None
    try:
        rows = book.worksheets[0].iter_rows(values_only=True)
        header = _header(path, ["" if value is None else str(value) for value in next(rows, ())])
        for number, cells in enumerate(rows, start=2):
            values = ["" if cell is None else str(cell) for cell in cells[: len(header)]]
            yield from _table_row(number, header, values + [""] * (len(header) - len(values)), "")
    finally:
        book.close()


def _header(path: Path, cells: list[str], cause: str = "") -> list[str]:
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if cause or len(set(names)) < len(names) or not all(names):
        raise SourceError(f"{path}: its first row must name each column once{f' ({cause})' if cause else ''}")
    if not names:
        raise SourceError(f"{path}: it has no header and no rows")
    return names


def _table_row(number: int, header: list[str], values: list[str], cause: str) -> Iterator[Row]:
    text = " | ".join(values)[:EXCERPT]
    while len(values) > len(header) and not values[-1].strip():
        values = values[:-1]  # empty cells behind the last column
    if not cause and not any(value.strip() for value in values):
        return
    if not cause and len(values) != len(header):
        cause = f"{len(values)} fields, and the header has {len(header)}"
    yield Row(number, text=text, cause=cause) if cause else Row(number, dict(zip(header, values, strict=True)), text)
