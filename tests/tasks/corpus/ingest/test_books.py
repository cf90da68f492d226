"""An EPUB is read in its own order, with its tables; one that cannot be read is named."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tasks.core.domain import Source
from tasks.core.records import BadLine, Document
from tasks.corpus.ingest.documents import read_documents

SOURCE = Source(name="shelf", files=["*"], licence="x", attribution="x")
CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
PACKAGE = (
    '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
    "<metadata><dc:title>On tiles</dc:title></metadata>"
    '<manifest><item id="b" href="two%20b.xhtml"/><item id="a" href="one.xhtml"/>'
    '<item id="c" href="style.css"/></manifest>'
    '<spine><itemref idref="a"/><itemref idref="b"/></spine></package>'
)
PAGE = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head><body>{}</body></html>'
TABLE = "<table><tr><th>Tile</th><th>Years</th></tr><tr><td>Clay</td><td>40</td></tr></table>"


def book(path: Path, **files: str) -> Path:
    given = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": PACKAGE, "OEBPS/style.css": "p {}"}
    pages = {"OEBPS/two b.xhtml": PAGE.format(f"<h1>Two</h1>{TABLE}"), "OEBPS/one.xhtml": PAGE.format("<p>Größe.</p>")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (given | pages | files).items():
            archive.writestr(name, text)
    return path


def read(path: Path) -> tuple[list[Document], list[BadLine]]:
    bad: list[BadLine] = []
    return list(read_documents(SOURCE, [path], bad)), bad


def test_a_book_is_read_in_the_order_of_its_spine_with_its_tables(tmp_path: Path) -> None:
    [document], bad = read(book(tmp_path / "tiles.epub"))
    assert (document.title, bad) == ("On tiles", [])
    assert document.text == "Größe.\n\n# Two\n\n| Tile | Years |\n| --- | --- |\n| Clay | 40 |"


@pytest.mark.parametrize(
    "files, cause",
    [
        ({"META-INF/rights.xml": "x"}, "the EPUB is protected against copying"),
        ({"META-INF/container.xml": "<container/>"}, "not an EPUB: its package file '' is missing"),
        ({"OEBPS/book.opf": PACKAGE.replace("itemref", "other")}, "no text in it"),
    ],
)
def test_a_book_that_cannot_be_read_is_named(tmp_path: Path, files: dict[str, str], cause: str) -> None:
    documents, [bad] = read(book(tmp_path / "tiles.epub", **files))
    assert documents == [] and bad.cause == cause


def test_a_file_that_is_no_archive_is_no_book(tmp_path: Path) -> None:
    (tmp_path / "tiles.epub").write_text("tiles")
    documents, [bad] = read(tmp_path / "tiles.epub")
    assert documents == [] and bad.cause == "not an EPUB: File is not a zip file"
