"""Rows of CSV and XLSX, one in memory, as people see them.

A table's header is told from its first rows as a whole, not from the first line: titles above it, line ends within it
and a missing one are no obstacle. What stands above it, and sheets of other columns, are rows that say so.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.corpus.reading.cells import displayed
from tasks.corpus.reading.columns import heading, named
from tasks.corpus.reading.lines import (
    EXCERPT,
    MAX_LINE_BYTES,
    Line,
    archive_problem,
    bounded_lines,
    likeliest_encoding,
    text_problem,
)

DELIMITERS = ",;\t|"
HEAD = 30  # rows among which the header and the delimiter are told
XML_BLOCK = 65_536  # bytes of a sheet read at a time


class SourceError(FlywheelError):
    """A file of a source has not the form that domain.yaml says, or none that can be read."""


@dataclass(frozen=True)
class Row:
    """One row: its line (of JSON lines or CSV), number (in a list) or row (of a sheet), from 1, and its fields.

    Where `cause` is set the row could not be read, and `text` shows what stands there. `sheet` names the sheet of a
    workbook, where it is not the first that is read.
    """

    number: int
    fields: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    cause: str = ""
    sheet: str = ""

    @property
    def place(self) -> str:
        """Where it stands in its file, in short."""
        return f"{self.sheet}!{self.number}" if self.sheet else str(self.number)


@dataclass(frozen=True)
class RawRow:
    """A row of a table before its header is known."""

    number: int
    values: list[str]
    cause: str = ""

    @property
    def filled(self) -> int:
        """How many cells hold something."""
        return sum(bool(value.strip()) for value in self.values)


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows below a header; quotes may hold lines, and a quote within them is doubled or has a backslash before it."""
    causes: dict[int, str] = {}  # line → why its row cannot be used
    lines = _noted(bounded_lines(path), causes)
    sample = [*islice(lines, HEAD)]
    reader = csv.reader(chain(sample, lines), strict=True, **_dialect(sample))
    return _headed(path, _records(reader, causes))[1]


def _noted(lines: Iterator[Line], causes: dict[int, str]) -> Iterator[str]:
    """Lines for csv.reader, each with an end; what is wrong with one is kept until its row comes."""
    for line in lines:
        if line.cause:
            causes[line.number] = line.cause
        yield line.text + "\n"


def _dialect(sample: list[str]) -> dict[str, Any]:
    """The delimiter and escape by which the most of these lines fall into rows of one width, and the widest ones."""

    def fit(form: dict[str, Any]) -> tuple[float, int]:
        records = [*_records(csv.reader(sample, strict=True, **form), {})]
        widths = Counter(len(record.values) for record in records if len(record.values) > 1)
        width, count = max(widths.items(), key=lambda item: item[1], default=(0, 0))
        return count / max(len(records), 1), width

    forms = [{"delimiter": mark, "escapechar": escape} for escape in (None, "\\") for mark in DELIMITERS]
    return max(forms, key=fit)


def _records(reader: Any, causes: dict[int, str]) -> Iterator[RawRow]:
    while True:
        begin = reader.line_num + 1
        try:
            values, cause = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            values, cause = [], f"not CSV: {error}"
        end = reader.line_num
        cause = next((causes[line] for line in range(begin, end + 1) if line in causes), cause)
        if cause and end > begin:
            cause = f"lines {begin} to {end}: {cause}"
        yield RawRow(begin, values, cause)


def sheet_rows(path: Path) -> Iterator[Row]:
    """Rows of the sheet that holds questions, else of the first, and of every other one in sight of the same header."""
    if problem := archive_problem(path):
        raise SourceError(f"{path}: {problem}")
    try:
        yield from _book_rows(path)
    except FlywheelError:
        raise
    except Exception as error:  # the parser raises whatever it meets in a damaged archive
        raise SourceError(f"{path}: not readable as XLSX ({error})") from None


def _book_rows(path: Path) -> Iterator[Row]:
    from openpyxl import load_workbook

    with contextlib.closing(load_workbook(path, read_only=True, data_only=True)) as book:
        tables = [(sheet.title, *_headed(path, _cells(sheet), pad=True)) for sheet in book.worksheets if _holds(sheet)]
        if not tables:
            raise SourceError(f"{path}: it has no header and no rows")
        hidden = {sheet.title for sheet in book.worksheets if sheet.sheet_state != "visible"}
        seen = [table for table in tables if table[0] not in hidden] or tables
        asking = (table for table in seen if {"question", "answer"} <= named(table[1]).keys())
        main, header, _ = next(asking, seen[0])
        for title, columns, rows in tables:
            if [*map(heading, columns)] != [*map(heading, header)]:
                cause = f"its columns are not those of {main!r}"
            else:
                cause = "it is hidden" if title in hidden and title != main else ""
            if cause:
                cause = f"sheet {title!r} is not read ({sum(1 for _ in rows)} rows): {cause}"
                yield Row(1, text=" | ".join(columns)[:EXCERPT], cause=cause, sheet=title)
                continue
            names = dict(zip(columns, header, strict=True))
            for row in rows:
                fields = {names.get(name, name): value for name, value in row.fields.items()}
                yield replace(row, fields=fields, sheet="" if title == main else title)


def _holds(sheet: Any) -> bool:
    sheet.reset_dimensions()  # writers of files get them wrong
    return any(value is not None for row in sheet.iter_rows(values_only=True) for value in row)


def _cells(sheet: Any) -> Iterator[RawRow]:
    """The rows of a sheet as they are displayed; a cell merged downwards counts in each row that it covers."""
    merged = _merged(sheet)
    held: dict[int, tuple[str, int]] = {}  # column → what it holds, down to which row
    for number, row in enumerate(sheet.iter_rows(), start=1):
        values = [displayed(cell) for cell in row]
        for column, (text, last) in held.items():
            if number <= last:
                values += [""] * (column + 1 - len(values))
                values[column] = text
        held |= {column: (values[column], last) for column, last in merged.get(number, ()) if column < len(values)}
        yield RawRow(number, values)


def _merged(sheet: Any) -> dict[int, list[tuple[int, int]]]:
    """First row → (column, from 0, and last row) of cells merged over rows, which stand at the end of a sheet's XML."""
    from openpyxl.utils import range_boundaries

    tail = b""
    with sheet._get_source() as source:
        while block := source.read(XML_BLOCK):
            tail = tail[-MAX_LINE_BYTES:] + block
    merged: dict[int, list[tuple[int, int]]] = {}
    for reference in re.findall(rb'<(?:\w+:)?mergeCell [^>]*?ref="([A-Z]+\d+:[A-Z]+\d+)"', tail):
        column, first, _, last = range_boundaries(reference.decode())
        if last > first:
            merged.setdefault(first, []).append((column - 1, last))
    return merged


def _headed(path: Path, records: Iterator[RawRow], pad: bool = False) -> tuple[list[str], Iterator[Row]]:
    """A table's header, and its rows; what stands above the header is among them, with the cause.

    `pad`: a row that ends early has empty cells at its end, and one that goes on has columns called by their place.
    Raises SourceError: there is no row, or the header cannot be read.
    """
    head = [*islice(records, HEAD)]
    if not any(record.filled or record.cause for record in head):
        raise SourceError(f"{path}: it has no header and no rows")
    place = _header_place(head)
    found = head[place]
    names = " ".join(found.values)
    if cause := found.cause or text_problem(names):
        if likely := cause == "not UTF-8" and likeliest_encoding(names.encode("utf-8", "surrogateescape")):
            cause += f", but likely {likely}"
        raise SourceError(f"{path}: its header (line {found.number}) cannot be read ({cause}); save the file as UTF-8")
    bare = _is_bare(head[place:])
    header = [f"column {number}" for number, _ in enumerate(found.values, 1)] if bare else _unique(found.values)
    above = [Row(r.number, text=_shown(r.values), cause="it stands above the header") for r in head[:place] if r.filled]
    below = chain(head[place if bare else place + 1 :], records)
    return header, chain(above, (row for record in below for row in _table_row(record, header, pad)))


def _header_place(head: list[RawRow]) -> int:
    """The first row that names a question and an answer; else the first that is as full as most; else the first.

    Below the first row Q and A are rather data than names.
    """
    usable = [(place, record) for place, record in enumerate(head) if record.filled and not record.cause]
    for place, record in usable:
        words = [
            value for value in record.values if place == usable[0][0] or len(value.strip()) > 1 or not value.isascii()
        ]
        if {"question", "answer"} <= named(words).keys():
            return place
    full = Counter(record.filled for _, record in usable if record.filled > 1)
    usual = max(full, key=lambda filled: (full[filled], filled), default=1)
    first = next(place for place, record in enumerate(head) if record.filled or record.cause)
    fits = (place for place, record in usable if record.filled + (usual > 2 and not record.values[0].strip()) >= usual)
    return next(fits, first)


def _is_bare(rows: list[RawRow]) -> bool:
    """Whether a table begins with a row and no header: where most rows of a column ask, its first one does, too."""
    if named(rows[0].values):
        return False
    for column, value in enumerate(rows[0].values):
        asked = [row.values[column].strip().endswith(("?", "？")) for row in rows if column < len(row.values)]
        if value.strip().endswith(("?", "？")) and len(asked) > 1 and 2 * sum(asked) > len(asked):
            return True
    return False


def _is_header(values: list[str]) -> bool:
    known = named(value for value in values if len(value.strip()) > 1 or not value.isascii())  # Q and A are rather data
    return {"question", "answer"} <= known.keys() and {*known.values()} == {value for value in values if value.strip()}


def _unique(cells: list[str]) -> list[str]:
    """The columns' names on one line each; a nameless column is called by its place, those of one name are numbered."""
    names = [" ".join(cell.split()) for cell in cells]
    while names and not names[-1]:
        names.pop()
    return [
        f"{name} #{names[:place].count(name)}" if names.count(name) > 1 and name else name or f"column {place}"
        for place, name in enumerate(names, start=1)
    ]


def _shown(values: list[str]) -> str:
    return " | ".join(values)[:EXCERPT]


def _table_row(record: RawRow, header: list[str], pad: bool) -> Iterator[Row]:
    number, values, cause = record.number, record.values, record.cause
    text = _shown(values)
    while len(values) > len(header) and not values[-1].strip():
        values = values[:-1]  # empty cells behind the last column
    if not cause and not record.filled:
        return
    if pad:
        values = values + [""] * (len(header) - len(values))
        header = header + [f"column {place}" for place in range(len(header) + 1, len(values) + 1)]
    first = next((place for place, value in enumerate(values) if value.strip()), 0)
    if not cause and len(values) != len(header):
        cause = f"{len(values)} fields, and the header has {len(header)}"
    elif not cause and " ".join(values[first].split()) == header[first]:
        cause = "it repeats the header"
    elif not cause and not "".join(values).strip("-:= "):
        cause = "it is a rule of dashes"
    elif not cause and _is_header(values):
        cause = "it names columns: a second header"
    yield Row(number, text=text, cause=cause) if cause else Row(number, dict(zip(header, values, strict=True)), text)
