"""Documents: text, Markdown, HTML, PDF, DOCX, PPTX, EPUB and rows of JSON lines become plain text, one at a time.

Kept parsers do the reading: trafilatura, pypdf, python-pptx, mammoth with markdownify. Their text is put into one form
(`tidy`), in which spans of examples count; a PDF's lines are joined into paragraphs (pages.py), its scanned pages read
where there is a program for it (scans.py), a Word file is first made whole (word.py), a table's merged cell stands
wherever it covers. Limits: PDF tables come as words in reading order; a table in a cell becomes text. What cannot be
read is returned for the quarantine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tasks.core.domain import Source
from tasks.core.files import digest_of, sha256_file
from tasks.core.records import BadLine, Document
from tasks.corpus.ingest.books import read_book
from tasks.corpus.ingest.pages import NEW_PARAGRAPH, joined_lines, without_heads
from tasks.corpus.ingest.scans import read_scans
from tasks.corpus.ingest.slides import read_slides
from tasks.corpus.ingest.word import LISTED, raised, readable, written
from tasks.corpus.reading.lines import (
    MAX_LINE_BYTES,
    OTHER_ENCODINGS,
    SHOWN,
    archive_problem,
    bad_line,
    likeliest_encoding,
    text_problem,
)
from tasks.corpus.reading.rows import Row, read_rows
from tasks.text.markup import role_mark_in

DOCUMENT_FIELDS = ("id", "title", "text")  # of a row of JSON lines
MAX_FILE_BYTES = 64_000_000
ENDINGS = (".txt", ".md", ".markdown", ".html", ".htm", ".pdf", ".docx", ".pptx", ".epub", ".jsonl")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\u00ad]")
LIGATURES = {code: unicodedata.normalize("NFKC", chr(code)) for code in range(0xFB00, 0xFB07)}  # ff, fi, ffl, st
SPACES = {0xA0: " ", 0x2028: "\n", 0x2029: "\n\n"}
SOFT_HYPHEN = re.compile(r"\u00ad[ \t]*\n[ \t]*")  # where a word goes on in the next line
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)

LAYOUT = re.compile(r"<(?:table|su[bp]|del|s|strike|ol|math)\b|line-through", re.IGNORECASE)
FORMULA = re.compile(r"^[^\[]*[\d+−=/-][^\[]*$|^[ni]$")  # of what is raised: not an ordinal's ending, nor a note's [1]
NUMBERED = re.compile(rf"(?:(?:[-*+]|\d+\.) )?{LISTED}")  # a list's bullet before the number that it shows


@dataclass(frozen=True)
class _Parsed:
    title: str
    text: str
    pictures: tuple[int, ...] = ()  # pages, or slides, that have no text
    problem: str = ""  # why they have none, and what to do


def read_documents(source: Source, paths: list[Path], bad: list[BadLine], language: str = "en") -> Iterator[Document]:
    """The documents of a source, parsed one at a time as they are taken; what cannot be read goes to `bad`.

    Scanned pages are read in `language`.
    """
    seen: dict[str, str] = {}
    for path in paths:
        digest = sha256_file(path)
        for number, name, parsed in _parse(source, path, bad, language):
            identity = digest_of(parsed.text)
            problem = _problem(parsed.text) or (f"the same text as {seen[identity]}" if identity in seen else "")
            if problem:
                bad.append(bad_line(path, number, problem, parsed.text))
                continue
            seen[identity] = name
            yield Document(
                id=digest_of([name, parsed.text]), name=name, title=parsed.title, text=parsed.text, sha256=digest
            )


def tidy(text: str) -> str:
    """The one form that spans count in; doing it twice changes nothing."""
    text = text.translate(LIGATURES).replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
    text = unicodedata.normalize("NFC", text)
    text = CONTROL.sub("", SOFT_HYPHEN.sub("", text)).translate(SPACES)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _parse(source: Source, path: Path, bad: list[BadLine], language: str) -> Iterator[tuple[int, str, _Parsed]]:
    name, ending = f"{source.name}/{path.name}", path.suffix.casefold()
    for row in read_rows(path) if ending == ".jsonl" else ():
        try:
            identity, title, text = _row(row)
            yield row.number, f"{name}/{identity or row.number}", _Parsed(title, tidy(text))
        except ValueError as error:
            bad.append(bad_line(path, row.number, str(error), row.text))
    if ending == ".jsonl":
        return
    try:
        parsed = _file(path, ending, language)
    except Exception as error:  # parsers raise whatever they meet in a damaged file
        cause = str(error) if isinstance(error, ValueError) else f"not readable: {type(error).__name__}: {error}"
        bad.append(bad_line(path, 1, cause))
        return
    for page in parsed.pictures:
        bad.append(bad_line(path, 1, f"page {page} is a picture without text: {parsed.problem}"))
    yield 1, name, _Parsed(parsed.title or path.stem, parsed.text)


def _row(row: Row) -> tuple[str, str, str]:
    if row.cause:
        raise ValueError(row.cause)
    found = [row.fields.get(key) for key in DOCUMENT_FIELDS]
    if not isinstance(found[2], str) or not all(isinstance(value, str | int | float | None) for value in found):
        raise ValueError("the text of a document must be a text, its id and title a text or a number")
    values = ["" if value is None else str(value) for value in found]
    for value in values:
        if problem := text_problem(value):
            raise ValueError(problem)
    return values[0].strip(), values[1].strip(), values[2]


def _file(path: Path, ending: str, language: str) -> _Parsed:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"a file of {path.stat().st_size:,} bytes; {MAX_FILE_BYTES:,} are the most")
    if ending == ".pdf":
        return _pdf(path, language)
    if ending == ".docx":
        return _docx(path)
    if ending == ".pptx":
        slides = read_slides(path)
        headed = _headed(tidy("\n\n".join(map(_markdown, slides.html))))
        return _Parsed(headed.title, headed.text, slides.pictures, "put what it says into the slide's notes")
    if ending == ".epub":
        book = read_book(path)
        return _Parsed(tidy(book.title), tidy("\n\n".join(map(_markdown, book.pages))))
    if ending not in ENDINGS:
        raise ValueError(f"no parser for {ending or 'a file without an ending'}; documents are {', '.join(ENDINGS)}")
    text = _decoded(path)
    if ending in (".html", ".htm"):
        return _html(text)
    return _Parsed("", tidy(text)) if ending == ".txt" else _headed(tidy(text))


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(OTHER_ENCODINGS):
        raise ValueError("the file is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        name = likeliest_encoding(content)
        likely = f", but likely {name}: {content.decode(name, 'replace')[:SHOWN]!r}" if name else ""
        raise ValueError(f"not UTF-8 at byte {error.start}{likely}; save it as UTF-8") from None
    if max(map(len, text.split("\n"))) > MAX_LINE_BYTES:
        raise ValueError(f"a line of more than {MAX_LINE_BYTES:,} characters")
    return text


def _html(text: str) -> _Parsed:
    import trafilatura

    body = trafilatura.extract(_plain(text), include_comments=False, favor_recall=True) or ""
    found = trafilatura.extract_metadata(text)
    return _Parsed((found.title or "") if found else "", tidy(NUMBERED.sub("", body)))


def _plain(html: str) -> str:
    """HTML without its layout: struck text gone, formulas and numbers of lists as characters, cells unmerged."""
    if not LAYOUT.search(html):
        return html
    from lxml.html import HTMLParser, document_fromstring, tostring

    page = document_fromstring(html.encode(), parser=HTMLParser(encoding="utf-8"))
    for unseen in page.xpath("//del | //s | //strike | //annotation | //*[contains(@style, 'line-through')]"):
        unseen.drop_tree()
    _write_formulas(page)
    for ordered in page.iter("ol"):
        _number(ordered)
    for text in page.xpath("//table//text()[contains(., '|')]"):
        setattr(text.getparent(), "text" if text.is_text else "tail", text.replace("|", "\\|"))
    for table in reversed(list(page.iter("table"))):
        rows = _spread(table)
        if table.getparent().xpath("ancestor-or-self::td | ancestor-or-self::th"):
            text = "; ".join(", ".join(" ".join(cell.text_content().split()) for cell in row) for row in rows)
            table.addnext(table.makeelement("p"))
            table.getnext().text = text
            table.drop_tree()
    return str(tostring(page, encoding="unicode"))


def _write_formulas(page: Any) -> None:
    """What is raised, lowered or a fraction becomes characters of its line."""
    for small in reversed(page.xpath("//sup | //sub | //msup/*[2] | //msub/*[2]")):
        place = small.tag if small.tag in ("sup", "sub") else small.getparent().tag[1:]
        text = small.text_content().strip()
        if FORMULA.search(text) or place != small.tag:
            small[:], small.text = [], raised(text, place)
    for part in reversed(page.xpath("//mfrac/*")):
        text = part.text_content().strip()
        part[:], part.text = [], text if text.isalnum() else f"({text})"
        part.tail = "/" if part.getnext() is not None else ""
    for math in list(page.iter("math")):
        math[:], math.text = [], " ".join(math.text_content().split())
        math.drop_tag()


def _number(ordered: Any) -> None:
    items = ordered.findall("li")
    step = -1 if "reversed" in ordered.attrib else 1
    number = _whole(ordered.get("start"), len(items) if step < 0 else 1)
    form = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}.get(ordered.get("type"), "")
    for item in items:
        number = _whole(item.get("value"), number)
        first: Any = next(iter(item.xpath("descendant::text()[normalize-space()]")), LISTED)
        if LISTED not in first and not NEW_PARAGRAPH.match(first.strip()) and "none" not in ordered.get("style", ""):
            label = f"{LISTED}{written(number, form)}. {first.lstrip()}"
            setattr(first.getparent(), "text" if first.is_text else "tail", label)
        number += step


def _whole(text: str | None, other: int) -> int:
    return int(text) if text and re.fullmatch(r"\s*-?[0-9]{1,9}\s*", text) else other


def _spread(table: Any) -> list[Any]:
    """The rows of a table, which now have a copy of a merged cell wherever it reaches."""
    rows = table.xpath("./tr | ./thead/tr | ./tbody/tr | ./tfoot/tr")
    widest = max((len(row.xpath("./td | ./th")) for row in rows), default=0)
    grid: list[dict[int, Any]] = [{} for _ in rows]  # of each row: column → the cell that reaches there
    for place, row in enumerate(rows):
        for cell in row.xpath("./td | ./th"):
            row.remove(cell)
            column = next(free for free in count() if free not in grid[place])
            for reached in grid[place : place + _span(cell, "rowspan", len(rows))]:
                for right in range(min(_span(cell, "colspan", widest), widest)):
                    reached.setdefault(column + right, cell)
    for row, cells in zip(rows, grid, strict=True):
        for column in range(max(cells, default=-1) + 1):
            copy = deepcopy(cells.get(column, row.makeelement("td")))
            for name in ("colspan", "rowspan"):
                copy.attrib.pop(name, None)
            row.append(copy)
    return [row.xpath("./td | ./th") for row in rows]


def _span(cell: Any, name: str, whole: int) -> int:
    """How many rows or columns a cell covers; 0 is all that are left."""
    text = cell.get(name, "1").strip()
    return (int(text) or whole) if text.isdecimal() else 1


def _pdf(path: Path, language: str) -> _Parsed:
    import pypdf

    with pypdf.PdfReader(path) as reader:
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("the PDF asks for a password; save it without one")
        pages = [tidy(page.extract_text()) for page in reader.pages]
        blank = [n for n, text in enumerate(pages, start=1) if not text and reader.pages[n - 1].images]
        title = str((reader.metadata and reader.metadata.title) or "")
    scanned = read_scans(path, blank, language)
    for number, text in scanned.texts.items():
        pages[number - 1] = tidy(text)
    if not any(pages):
        problem = scanned.problem or "put text behind them (ocrmypdf does)"
        raise ValueError(f"no text in it: its pages are pictures, such as scans: {problem}")
    pictures = tuple(number for number in blank if not pages[number - 1])
    kept = ("\n".join(lines) for lines in without_heads([page.split("\n") for page in pages]))
    return _Parsed(tidy(title), tidy(joined_lines("\f".join(kept))), pictures, scanned.problem)


def _docx(path: Path) -> _Parsed:
    if problem := archive_problem(path):
        raise ValueError(problem)
    import mammoth

    return _headed(tidy(_markdown(mammoth.convert_to_html(readable(path)).value)))


def _markdown(html: str) -> str:
    """HTML that is text from end to end, with its headings, lists and tables."""
    from markdownify import markdownify

    # Pictures would come as megabytes of base64, and links are of no use to a reader of text.
    form: Any = {"heading_style": "ATX", "strip": ["img", "a"], "table_infer_header": True}
    markdown = markdownify(_plain(html), **form, escape_asterisks=False, escape_underscores=False)
    return NUMBERED.sub("", markdown)


def _headed(text: str) -> _Parsed:
    heading = HEADING.search(text)
    return _Parsed(heading.group(1).strip() if heading else "", text)


def _problem(text: str) -> str:
    if not any(character.isalnum() for character in text):
        return "no text in it"
    if problem := text_problem(text):
        return problem
    mark = role_mark_in(text)
    return f"role mark in the text: {mark}" if mark else ""
