"""Scanned pages are read by a program where there is one; else each is named with what to install."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from tasks.core.domain import Source
from tasks.core.records import BadLine, Document
from tasks.corpus.ingest.documents import read_documents
from tasks.corpus.ingest.scans import language_code
from tests.pdf_file import bound, pdf

SOURCE = Source(name="attic", files=["*"], licence="x", attribution="x")
PROGRAMS = [name for name in ("ocrmypdf", "tesseract") if shutil.which(name)]


def picture(text: str = "") -> bytes:
    from PIL import Image, ImageDraw, ImageFont

    image, content = Image.new("L", (900, 200), 255), io.BytesIO()
    ImageDraw.Draw(image).text((40, 60), text, fill=0, font=ImageFont.load_default(size=60))
    image.save(content, "PDF", resolution=150)
    return content.getvalue()


def read(path: Path, language: str) -> tuple[list[Document], list[BadLine]]:
    bad: list[BadLine] = []
    return list(read_documents(SOURCE, [path], bad, language)), bad


def program(folder: Path, name: str, script: str) -> None:
    """A stand-in for the program, first and alone on the path."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of the path: nothing is installed but what a test puts there."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def test_without_a_program_each_page_is_named_with_what_to_install(alone: Path) -> None:
    (alone / "mixed.pdf").write_bytes(bound(pdf("Tiles last long."), picture("Ziegel")))
    [document], [bad] = read(alone / "mixed.pdf", "de")
    assert document.text == "Tiles last long."
    assert bad.cause == (
        "page 2 is a picture without text: install tesseract or ocrmypdf with the language deu, or put text behind it"
    )


def test_a_file_of_pictures_alone_is_refused_with_what_to_install(alone: Path) -> None:
    (alone / "scan.pdf").write_bytes(picture("Ziegel"))
    documents, [bad] = read(alone / "scan.pdf", "zh")
    assert documents == [] and bad.cause.startswith("no text in it: its pages are pictures")
    assert "install tesseract or ocrmypdf with the language chi_sim" in bad.cause


def test_what_the_program_reads_is_the_text_of_the_page(alone: Path) -> None:
    """It is asked in the domain's language, for the page without text alone."""
    program(alone / "bin", "tesseract", 'echo "read as $4 from $2"')
    (alone / "mixed.pdf").write_bytes(bound(pdf("Tiles last long."), picture("Ziegel")))
    [document], bad = read(alone / "mixed.pdf", "de")
    assert (document.text, bad) == ("Tiles last long.\n\nread as deu from stdout", [])


def test_what_the_program_says_when_it_fails_is_told(alone: Path) -> None:
    program(alone / "bin", "tesseract", 'echo "Failed loading language deu" >&2; exit 1')
    (alone / "scan.pdf").write_bytes(picture("Ziegel"))
    _, [bad] = read(alone / "scan.pdf", "de")
    assert bad.cause.endswith("tesseract -l deu fails: Failed loading language deu")


def test_a_page_on_which_the_program_finds_nothing_is_named(alone: Path) -> None:
    program(alone / "bin", "tesseract", "echo")
    (alone / "mixed.pdf").write_bytes(bound(pdf("Tiles last long."), picture()))
    [document], [bad] = read(alone / "mixed.pdf", "en")
    assert document.text == "Tiles last long." and bad.cause.endswith("tesseract found none on it")


@pytest.mark.skipif(not PROGRAMS, reason="neither ocrmypdf nor tesseract is installed")
def test_the_real_program_reads_a_scanned_page(tmp_path: Path) -> None:
    (tmp_path / "scan.pdf").write_bytes(picture("Clay tiles last long"))
    [document], bad = read(tmp_path / "scan.pdf", "en")
    assert "Clay tiles last long" in document.text and bad == []


@pytest.mark.parametrize(
    "language, code", [("de", "deu"), ("sv", "swe"), ("zh", "chi_sim"), ("no", "nor"), ("qq", "eng")]
)
def test_languages_are_called_as_tesseract_calls_them(language: str, code: str) -> None:
    assert language_code(language) == code
