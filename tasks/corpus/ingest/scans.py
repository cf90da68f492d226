"""Pages of a PDF that are pictures, read by ocrmypdf or tesseract where one of them is installed.

Nothing of either is part of this project: a program that is found is started, on a file of its own that goes away
afterwards. Without one the pages stay unread, and the quarantine says what to install. Limit: what is read hangs on the
program's version, so the same scan may give another text on another machine.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SECONDS = 120  # for a page
# How tesseract calls a language, where that is not its ISO 639-3 code.
TESSERACT = {"zh": "chi_sim", "no": "nor", "nb": "nor", "nn": "nor", "fa": "fas", "ms": "msa", "et": "est", "lv": "lav"}


class Scanned(NamedTuple):
    """The texts of pages by their numbers, and why others have none, with what to do."""

    texts: dict[int, str]
    problem: str


def read_scans(path: Path, pages: Sequence[int], language: str) -> Scanned:
    """The texts of pages, counted from 1, that hold pictures only; `language` is an ISO 639-1 code."""
    if not pages:
        return Scanned({}, "")
    code = language_code(language)
    for program, read in (("ocrmypdf", _ocrmypdf), ("tesseract", _tesseract)):
        if found := shutil.which(program):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    texts = read(found, path, pages, code, Path(folder))
                except subprocess.CalledProcessError as error:
                    said = error.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"]
                    return Scanned({}, f"{program} -l {code} fails: {said[-1]}")
                except subprocess.TimeoutExpired as error:
                    return Scanned({}, f"{program} took more than {error.timeout:.0f} s")
            return Scanned(texts, f"{program} found none on it")
    return Scanned({}, f"install tesseract or ocrmypdf with the language {code}, or put text behind it")


def language_code(language: str) -> str:
    """How tesseract calls a language; English where it cannot be told."""
    from lingua import IsoCode639_1, Language

    if language in TESSERACT:
        return TESSERACT[language]
    try:
        return Language.from_iso_code_639_1(IsoCode639_1.from_str(language.upper())).iso_code_639_3.name.lower()
    except ValueError:
        return "eng"


def _run(command: list[str], seconds: float) -> bytes:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=seconds).stdout


def _ocrmypdf(program: str, path: Path, pages: Sequence[int], code: str, folder: Path) -> dict[int, str]:
    """A copy of the PDF with text behind its pictures; pages with text stay as they are."""
    import pypdf

    copy, wanted = folder / "read.pdf", ",".join(map(str, pages))
    options = ["--skip-text", "--output-type", "pdf", "--jobs", "1", "--pages", wanted, "-l", code]
    _run([program, *options, str(path), str(copy)], SECONDS * len(pages))
    with pypdf.PdfReader(copy) as reader:
        return {number: reader.pages[number - 1].extract_text() for number in pages}


def _tesseract(program: str, path: Path, pages: Sequence[int], code: str, folder: Path) -> dict[int, str]:
    """The pictures of each page one after the other."""
    import pypdf

    texts: dict[int, str] = {}
    with pypdf.PdfReader(path) as reader:
        for number in pages:
            read = []
            for place, picture in enumerate(reader.pages[number - 1].images):
                file = folder / f"{number}-{place}{Path(picture.name).suffix}"
                file.write_bytes(picture.data)
                read.append(_run([program, str(file), "stdout", "-l", code], SECONDS).decode(errors="replace"))
            texts[number] = "\n\n".join(read)
    return texts
