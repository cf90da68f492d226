"""Lines of files that nobody has checked: bounded, decoded, with what is wrong with them said.

No file costs more memory than one line of MAX_LINE_BYTES. A file is UTF-8, or what its byte-order mark says, or, where
most of its lines beyond ASCII are no UTF-8, what charset-normalizer takes it for. A line ends in LF, CR LF or CR.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tasks.core.records import BadLine

MAX_LINE_BYTES = 1_000_000
MAX_UNPACKED_BYTES = 256_000_000  # of an office file, which is a ZIP archive
EXCERPT = 2000  # characters of a bad line that the quarantine shows
SHOWN = 80  # and a sentence to a person
OLE = bytes.fromhex("d0cf11e0a1b11ae1")  # how old office files begin, and new ones with a password
OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SAMPLE_BYTES = 1_000_000  # of a file, from which its encoding is told
MIN_BROKEN_LINES = 3  # fewer lines that are no UTF-8 tell nothing about another encoding
# In the order in which they are taken where a text reads as well in several.
ENCODINGS = ("cp1252", "gb18030", "big5", "shift_jis", "euc_jp", "euc_kr", "cp1251", "koi8_r", "cp1250", "mac_roman")


@dataclass(frozen=True)
class Line:
    """One line without its end, counted from 1; where `cause` says why it cannot be used, only its beginning.

    Bytes that cannot be decoded are surrogates, which `text_problem` finds.
    """

    number: int
    text: str
    cause: str = ""


def encoding_of(path: Path) -> str:
    """The encoding of a text file, by the name that Python has for it; UTF-8 where nothing else is likelier."""
    with path.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
    if sample.startswith(OTHER_ENCODINGS):
        return "utf-16"
    beyond_ascii = [line for line in sample.splitlines() if not line.isascii()]
    broken = [line for line in beyond_ascii if not _is_utf8(line)]
    if len(broken) < MIN_BROKEN_LINES or 2 * len(broken) < len(beyond_ascii):
        return "utf-8-sig"
    return likeliest_encoding(b"\n".join(broken)) or "utf-8-sig"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def likeliest_encoding(content: bytes) -> str:
    """The first of ENCODINGS in which the text is as orderly as in any; "" where it is orderly in none."""
    from charset_normalizer import from_bytes

    found = list(from_bytes(content, cp_isolation=list(ENCODINGS)))
    least = min((match.chaos for match in found), default=1.0)
    equal = {name for match in found if match.chaos == least for name in match.could_be_from_charset}
    return next((name for name in ENCODINGS if name in equal), "")


def open_text(path: Path) -> TextIO:
    """A text file, decoded, its line ends as they are; bytes that cannot be decoded come as surrogates."""
    encoding = encoding_of(path)
    errors = "replace" if encoding == "utf-16" else "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline="")


def bounded_lines(path: Path) -> Iterator[Line]:
    """The lines of a file, a byte-order mark left out; one longer than MAX_LINE_BYTES comes with its cause."""
    with open_text(path) as stream:
        number = 0
        while text := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(text) > MAX_LINE_BYTES and not text.endswith(("\n", "\r")):
                size = len(text) + _skip_line(stream)
                yield Line(number, text[:EXCERPT], f"a line of {size:,} characters; {MAX_LINE_BYTES:,} are the most")
            else:
                yield Line(number, text.rstrip("\r\n"))


def _skip_line(stream: TextIO) -> int:
    size = 0
    while block := stream.readline(MAX_LINE_BYTES):
        size += len(block)
        if block.endswith(("\n", "\r")):
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
    except OSError as error:
        return f"not an office file: {error}"
    except zipfile.BadZipFile as error:
        with path.open("rb") as stream:
            old = stream.read(len(OLE)) == OLE
        if old:
            return "an old .xls, .doc or .ppt, or a file with a password: save it as .xlsx, .docx or .pptx without one"
        return f"not an office file: {error}"
    if unpacked > MAX_UNPACKED_BYTES:
        return f"it unpacks to {unpacked:,} bytes; {MAX_UNPACKED_BYTES:,} are the most"
    return ""


def bad_line(path: Path, number: int, cause: str, text: str = "") -> BadLine:
    """A line for the quarantine: its beginning, whatever bytes it holds, as text that can be written."""
    shown = text[:EXCERPT].encode("utf-8", errors="replace").decode("utf-8")
    return BadLine(file=path.as_posix(), line=number, cause=cause, text=shown)


def by_cause(bad: Iterable[BadLine]) -> list[str]:
    """What cannot be used of a file, a sentence for each cause: how many rows, and the first of them.

    Causes that differ in numbers only, such as the place of a mistake, count as one.
    """
    groups: dict[str, list[BadLine]] = {}
    for line in bad:
        groups.setdefault(re.sub(r"\d+", "0", line.cause), []).append(line)
    return [
        f"{len(lines)} row{'s' * (len(lines) > 1)} not used: {lines[0].cause} "
        f"(first: line {lines[0].line}: {lines[0].text[:SHOWN].strip()!r})"
        for lines in groups.values()
    ]
