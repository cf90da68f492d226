"""EPUB: a ZIP archive of web pages, with a package file that says in which order they are read."""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from tasks.corpus.reading.lines import archive_problem

CONTAINER, LOCK = "META-INF/container.xml", "META-INF/rights.xml"


class Book(NamedTuple):
    """The title of a book, and the bodies of its pages as HTML, in the order in which they are read."""

    title: str
    pages: list[str]


def read_book(path: Path) -> Book:
    """Read an EPUB. Raises ValueError: it is none, or its pages are locked."""
    if problem := archive_problem(path):
        raise ValueError(problem.replace("an office file", "an EPUB"))
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if LOCK in names:
            raise ValueError("the EPUB is protected against copying")
        if CONTAINER not in names:
            raise ValueError(f"not an EPUB: it has no {CONTAINER}")
        package = str(next(iter(_xml(archive, CONTAINER).xpath("//*[local-name()='rootfile']/@full-path")), ""))
        if package not in names:
            raise ValueError(f"not an EPUB: its package file {package!r} is missing")
        tree = _xml(archive, package)
        files = {item.get("id"): item.get("href", "") for item in tree.xpath("//*[local-name()='item']")}
        hrefs = [files.get(name, "") for name in tree.xpath("//*[local-name()='itemref']/@idref")]
        wanted = [posixpath.normpath(posixpath.join(posixpath.dirname(package), unquote(href))) for href in hrefs]
        title = " ".join("".join(tree.xpath("(//*[local-name()='title'])[1]//text()")).split())
        return Book(title, [_body(archive.read(name)) for name in wanted if name in names])


def _xml(archive: zipfile.ZipFile, name: str) -> Any:
    from lxml import etree

    return etree.fromstring(archive.read(name), parser=etree.XMLParser(resolve_entities=False, no_network=True))


def _body(page: bytes) -> str:
    """The body of a page, without its scripts and styles; XML's own line is left out, since text follows as HTML."""
    from lxml.html import HTMLParser, document_fromstring, tostring

    document = document_fromstring(page, parser=HTMLParser(encoding="utf-8"))
    for unseen in document.xpath("//script | //style | //nav"):
        unseen.drop_tree()
    return str(tostring(document.find("body"), encoding="unicode")) if document.find("body") is not None else ""
