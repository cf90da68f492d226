"""Documents for Self-QA: text, Markdown, HTML, PDF, DOCX and rows of JSON lines become plain text, one at a time.

Kept parsers do the reading: trafilatura (HTML without its navigation), pypdf, mammoth with markdownify (DOCX with
tables, as Markdown: what markitdown does, without the seconds that its import takes). Their text is put into one form
before anything counts characters in it: NFC, one kind of line end, no control characters, no trailing space, at most
one empty line; a PDF's lines are joined again into paragraphs. Spans of examples count in this form, which
data/ingest/documents.parquet keeps.

Limits: no pictures and so no scanned pages (such a PDF is an empty document, and said to be one); PDF tables come as
their words in reading order. What cannot be read is returned beside the documents, for the quarantine.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.corpus.lines import MAX_LINE_BYTES, OTHER_ENCODINGS, archive_problem, bad_line, text_problem
from tasks.corpus.markup import role_mark_in
from tasks.corpus.rows import Row, read_rows
from tasks.domain import DocumentSource
from tasks.files import digest_of, sha256_file
from tasks.records import BadLine, Document

MAX_FILE_BYTES = 64_000_000
ENDINGS = (".txt", ".md", ".markdown", ".html", ".htm", ".pdf", ".docx", ".jsonl")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\u00ad]")
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
# A line that begins a new paragraph of its own: bullets, numbers of lists, articles and sections, headings.
NEW_PARAGRAPH = re.compile(
    r"[-*•–—◦▪#|]|\(?\d{1,3}[.)、]|[（(]?[一二三四五六七八九十百零〇]+[）)、]|第.{1,9}[章节節条條]"
)
ENDS = re.compile(r"[.!?:;。！？：；…][\"'”’」』）)\]]*$")
SHORT_LINE = 0.6  # of the longest line: a line this short ended because its paragraph did


@dataclass(frozen=True)
class _Parsed:
    title: str
    text: str


def read_documents(source: DocumentSource, paths: list[Path]) -> tuple[Iterable[Document], list[BadLine]]:
    """The documents of a source, parsed one at a time as they are taken; the list fills with what cannot be read."""
    bad: list[BadLine] = []
    return _documents(source, paths, bad), bad


def _documents(source: DocumentSource, paths: list[Path], bad: list[BadLine]) -> Iterator[Document]:
    seen: dict[str, str] = {}
    for path in paths:
        digest = sha256_file(path)
        for number, name, parsed in _parse(source, path, bad):
            if problem := _problem(parsed.text):
                bad.append(bad_line(path, number, problem, parsed.text))
                continue
            identity = digest_of(parsed.text)
            if first := seen.setdefault(identity, name) if identity in seen else "":
                bad.append(bad_line(path, number, f"the same text as {first}", parsed.text))
                continue
            seen[identity] = name
            yield Document(
                id=digest_of([name, parsed.text]), name=name, title=parsed.title, text=parsed.text, sha256=digest
            )


def tidy(text: str) -> str:
    """The one form that spans count in; doing it twice changes nothing."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n"))
    text = CONTROL.sub("", text).replace("\u00a0", " ").replace("\u2028", "\n").replace("\u2029", "\n\n")
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def joined_lines(text: str) -> str:
    """A PDF's text with the lines of one paragraph joined: by a space, between two East Asian characters by nothing.

    A line goes on in the next unless it ends a sentence, is much shorter than the longest, or the next one begins a
    list item, an article or a heading. Hyphens at the end of a line are kept: which of them belong to the word cannot
    be told without a dictionary.
    """
    lines = text.split("\n")
    longest = max((len(line) for line in lines), default=0)
    out: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if not out or not before or not line or _breaks(before, line, longest):
            out.append(line)
        else:
            out[-1] += ("" if _dense(before[-1]) and _dense(line[0]) else " ") + line
    return "\n".join(out)


def _breaks(before: str, line: str, longest: int) -> bool:
    return bool(ENDS.search(before) or NEW_PARAGRAPH.match(line)) or len(before) < SHORT_LINE * longest


def _dense(character: str) -> bool:
    """Whether a character belongs to a writing without spaces between words: wide or full-width ones do."""
    return unicodedata.east_asian_width(character) in "WF"


def _parse(source: DocumentSource, path: Path, bad: list[BadLine]) -> Iterator[tuple[int, str, _Parsed]]:
    """Number, name and content of each document in a file."""
    name, ending = f"{source.name}/{path.name}", path.suffix.casefold()
    if ending == ".jsonl":
        yield from _rows(name, path, bad)
        return
    try:
        parsed = _file(path, ending)
    except Exception as error:  # parsers raise whatever they meet in a damaged file
        cause = str(error) if isinstance(error, ValueError) else f"not readable: {type(error).__name__}: {error}"
        bad.append(bad_line(path, 1, cause))
        return
    yield 1, name, _Parsed(parsed.title or path.stem, parsed.text)


def _rows(name: str, path: Path, bad: list[BadLine]) -> Iterator[tuple[int, str, _Parsed]]:
    for row in read_rows(path):
        try:
            identity, title, text = _row(row)
        except ValueError as error:
            bad.append(bad_line(path, row.number, str(error), row.text))
            continue
        yield row.number, f"{name}/{identity or row.number}", _Parsed(title, tidy(text))


def _row(row: Row) -> tuple[str, str, str]:
    if row.cause:
        raise ValueError(row.cause)
    values = [row.fields.get(key, "") for key in ("id", "title", "text")]
    if not all(isinstance(value, str) for value in values):
        raise ValueError("id, title and text of a document must be texts")
    for value in values:
        if problem := text_problem(value):
            raise ValueError(problem)
    return values[0].strip(), values[1].strip(), values[2]


def _file(path: Path, ending: str) -> _Parsed:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"a file of {path.stat().st_size:,} bytes; {MAX_FILE_BYTES:,} are the most")
    if ending == ".pdf":
        return _pdf(path)
    if ending == ".docx":
        return _docx(path)
    if ending not in ENDINGS:
        raise ValueError(f"no parser for {ending or 'a file without an ending'}; documents are {', '.join(ENDINGS)}")
    text = _decoded(path)
    if ending in (".html", ".htm"):
        return _html(text)
    heading = HEADING.search(text) if ending != ".txt" else None
    return _Parsed(heading.group(1).strip() if heading else "", tidy(text))


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(OTHER_ENCODINGS):
        raise ValueError("the file is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if max(map(len, text.split("\n"))) > MAX_LINE_BYTES:
        raise ValueError(f"a line of more than {MAX_LINE_BYTES:,} characters")
    return text


def _html(text: str) -> _Parsed:
    import trafilatura

    body = trafilatura.extract(text, include_comments=False, favor_recall=True) or ""
    found = trafilatura.extract_metadata(text)
    return _Parsed((found.title or "") if found else "", tidy(body))


def _pdf(path: Path) -> _Parsed:
    import pypdf

    with pypdf.PdfReader(path) as reader:
        if reader.is_encrypted and not reader.decrypt(""):
            raise ValueError("the PDF asks for a password")
        pages = [joined_lines(tidy(page.extract_text())) for page in reader.pages]
        title = str((reader.metadata and reader.metadata.title) or "")
    return _Parsed(tidy(title), tidy("\n\n".join(pages)))


def _docx(path: Path) -> _Parsed:
    if problem := archive_problem(path):
        raise ValueError(problem)
    import mammoth
    from markdownify import markdownify

    with path.open("rb") as stream:
        html = mammoth.convert_to_html(stream).value
    # Pictures would come as megabytes of base64, and links are of no use to a reader of text.
    text = tidy(markdownify(html, heading_style="ATX", strip=["img", "a"], table_infer_header=True))
    heading = HEADING.search(text)
    return _Parsed(heading.group(1).strip() if heading else "", text)


def _problem(text: str) -> str:
    if not any(character.isalnum() for character in text):
        return "no text in it"
    if problem := text_problem(text):
        return problem
    mark = role_mark_in(text)
    return f"role mark in the text: {mark}" if mark else ""
