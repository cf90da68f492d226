"""Lines of files that nobody has checked: bounded, decoded strictly, with what is wrong with them said.

Readers of sources take their lines from here, so that no file, whatever stands in it, costs more memory than
MAX_LINE_BYTES, and so that a byte-order mark, UTF-16 or broken UTF-8 is named and not guessed at.
"""

from __future__ import annotations

import codecs
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tasks.records import BadLine

MAX_LINE_BYTES = 1_000_000
MAX_UNPACKED_BYTES = 256_000_000  # of an office file, which is a ZIP archive
EXCERPT = 2000  # characters of a bad line that the quarantine shows
OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Line:
    """One line without its end, counted from 1; where `cause` says why it cannot be used, only its beginning."""

    number: int
    raw: bytes
    cause: str = ""


def bounded_lines(path: Path) -> Iterator[Line]:
    """The lines of a file, a UTF-8 byte-order mark left out; one longer than MAX_LINE_BYTES comes with its cause."""
    with path.open("rb") as stream:
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if number == 1 and raw.startswith(OTHER_ENCODINGS):
                yield Line(1, raw[:EXCERPT], "the file is UTF-16; save it as UTF-8")
                return
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if len(raw) > MAX_LINE_BYTES and not raw.endswith(b"\n"):
                size = len(raw) + _skip_line(stream)
                yield Line(number, raw[:EXCERPT], f"a line of {size:,} bytes; {MAX_LINE_BYTES:,} are the most")
            else:
                yield Line(number, raw.rstrip(b"\r\n"))


def _skip_line(stream: BinaryIO) -> int:
    """Read on to the end of the line; returns how many bytes that was."""
    size = 0
    while block := stream.readline(MAX_LINE_BYTES):
        size += len(block)
        if block.endswith(b"\n"):
            break
    return size


def text_problem(text: str) -> str:
    """Why a text cannot be kept: bytes that were not UTF-8, half a surrogate pair, control characters; or nothing."""
    for character in text:
        kind = unicodedata.category(character)
        if kind == "Cs":
            broken = "\udc80" <= character <= "\udcff"  # a byte, as Python's surrogateescape shows it
            return "not UTF-8" if broken else f"half a surrogate pair, U+{ord(character):04X}"
        if kind == "Cc" and character not in "\n\r\t":
            return f"the control character U+{ord(character):04X}"
    return ""


def archive_problem(path: Path) -> str:
    """Why an office file (a ZIP archive) cannot be opened: damaged, or a bomb; or nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        return f"not an office file: {error}"
    if unpacked > MAX_UNPACKED_BYTES:
        return f"it unpacks to {unpacked:,} bytes; {MAX_UNPACKED_BYTES:,} are the most"
    return ""


def bad_line(path: Path, number: int, cause: str, text: str = "") -> BadLine:
    """A line for the quarantine: its beginning, whatever bytes it holds, as text that can be written."""
    shown = text[:EXCERPT].encode("utf-8", errors="replace").decode("utf-8")
    return BadLine(file=path.as_posix(), line=number, cause=cause, text=shown)
