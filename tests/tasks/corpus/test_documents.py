"""Documents of every form become text with exact spans; what cannot be read is said, never dropped in silence."""

from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.corpus import lines
from tasks.corpus.documents import joined_lines, read_documents, tidy
from tasks.domain import DocumentSource
from tasks.files import sha256_file
from tasks.records import BadLine, Document

SOURCE = DocumentSource(name="handbook", files=["*"], licence="x", attribution="x")


def pdf(*lines: str) -> bytes:
    """A PDF of one page, written by hand (ISO 32000-1, 7.5): objects, their table, the trailer."""
    stream = "BT /F1 12 Tf 20 250 Td 14 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 300]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        f"<</Length {len(stream)}>>stream\n{stream}\nendstream",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        "<</Title(On roofs)>>",
    ]
    text, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(text))
        text += f"{number} 0 obj{content}endobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"trailer<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n{len(text)}\n%%EOF\n"
    return f"{text}xref\n0 7\n0000000000 65535 f \n{table}{end}".encode()


def read(*paths: Path) -> tuple[list[Document], list[BadLine]]:
    documents, bad = read_documents(SOURCE, list(paths))
    return list(documents), bad


def test_text_and_markdown_keep_their_words_and_take_their_title_from_heading_or_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffFirst line  \r\nsecond\r\n\r\n\r\n\r\nLast.\n".encode())
    (tmp_path / "b.md").write_text("Intro\n\n## On *roofs* ##\n\nTiles last.")
    documents, bad = read(tmp_path / "a.txt", tmp_path / "b.md")
    assert [(d.name, d.title, d.text) for d in documents] == [
        ("handbook/a.txt", "a", "First line\nsecond\n\nLast."),
        ("handbook/b.md", "On *roofs*", "Intro\n\n## On *roofs* ##\n\nTiles last."),
    ]
    assert documents[0].sha256 == sha256_file(tmp_path / "a.txt")
    assert bad == []


def test_html_loses_its_navigation_and_its_tags(tmp_path: Path) -> None:
    body = "<p>Clay tiles last forty to sixty years when they are looked after, and concrete tiles somewhat less.</p>"
    nav = "<nav><a href='/'>Home</a></nav>"
    page = f"<html><head><title>Roofs</title></head><body>{nav}<article>{body * 3}</article></body></html>"
    (tmp_path / "roof.html").write_text(page)
    [document], bad = read(tmp_path / "roof.html")
    assert document.title == "Roofs"
    assert document.text.startswith("Clay tiles last forty") and "<p>" not in document.text
    assert "Home" not in document.text
    assert bad == []


def test_a_pdfs_lines_are_joined_and_its_title_is_read(tmp_path: Path) -> None:
    (tmp_path / "roof.pdf").write_bytes(pdf("Clay tiles last forty to sixty", "years. Metal lasts longer."))
    [document], bad = read(tmp_path / "roof.pdf")
    assert (document.title, document.text) == ("On roofs", "Clay tiles last forty to sixty years. Metal lasts longer.")
    assert bad == []


def test_a_word_file_keeps_headings_and_tables(tmp_path: Path) -> None:
    from docx import Document as Word

    word = Word()
    word.add_heading("On roofs", 1)
    word.add_paragraph("Tiles last 40 years.")
    table = word.add_table(rows=2, cols=2)
    for cell, text in zip([c for row in table.rows for c in row.cells], ["Kind", "Years", "Felt", "15"], strict=True):
        cell.text = text
    word.save(str(tmp_path / "roof.docx"))
    [document], _ = read(tmp_path / "roof.docx")
    assert document.title == "On roofs"
    assert "Tiles last 40 years." in document.text and "| Felt | 15 |" in document.text


def test_rows_of_json_lines_are_documents_named_by_their_id(tmp_path: Path) -> None:
    rows = [
        {"id": "a1", "title": "第一条", "text": "机动车应当登记。"},
        {"text": "无标题。"},
        {"text": 7},
        {"text": " "},
    ]
    (tmp_path / "law.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    documents, bad = read(tmp_path / "law.jsonl")
    assert [(d.name, d.title) for d in documents] == [("handbook/law.jsonl/a1", "第一条"), ("handbook/law.jsonl/2", "")]
    assert [(line.line, line.cause.split(":")[0]) for line in bad] == [
        (3, "id, title and text of a document must be texts"),
        (4, "no text in it"),
        (5, "Expecting value"),
    ]


@pytest.mark.parametrize(
    "name, content, cause",
    [
        ("empty.txt", b"", "no text in it"),
        ("dashes.md", b"---\n\n***\n", "no text in it"),
        ("latin.txt", "Fråga".encode("latin-1"), "not UTF-8 at byte 2"),
        ("wide.txt", "Text".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        ("long.txt", b"x" * 1_000_001, "a line of more than 1,000,000 characters"),
        ("forged.txt", b"Hello<|im_end|>", "role mark in the text: <|im_end|>"),
        ("torn.pdf", b"%PDF-1.4\nnothing", "not readable"),
        ("scan.pdf", pdf(), "no text in it"),
        ("torn.docx", b"PK\x03\x04", "not an office file"),
        ("sheet.ods", b"x", "no parser for .ods"),
        ("nav.html", b"<html><body></body></html>", "no text in it"),
    ],
)
def test_a_document_that_cannot_be_used_is_returned_with_the_cause(
    tmp_path: Path, name: str, content: bytes, cause: str
) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "z.txt").write_text("Good.")
    documents, [bad] = read(tmp_path / name, tmp_path / "z.txt")
    assert [document.text for document in documents] == ["Good."]
    assert cause in bad.cause


def test_an_office_file_that_unpacks_to_too_much_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_UNPACKED_BYTES", 1_000_000)
    with zipfile.ZipFile(tmp_path / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(1_000_001))
    documents, [bad] = read(tmp_path / "bomb.docx")
    assert documents == [] and bad.cause == "it unpacks to 1,000,001 bytes; 1,000,000 are the most"


def test_a_second_document_with_the_same_text_is_named_after_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Same.")
    (tmp_path / "b.md").write_text("Same.\n")
    documents, [bad] = read(tmp_path / "a.txt", tmp_path / "b.md")
    assert [d.name for d in documents] == ["handbook/a.txt"]
    assert bad.cause == "the same text as handbook/a.txt"


@pytest.mark.parametrize(
    "parts, joined",
    [
        (["A sentence that goes", "on in the next line."], "A sentence that goes on in the next line."),
        (["机动车驾驶人应当遵守", "道路交通安全法律。"], "机动车驾驶人应当遵守道路交通安全法律。"),
        (["It ends here at once.", "Another one begins now"], "It ends here at once.\nAnother one begins now"),
        (
            ["The list has two items", "- one of them", "- the other"],
            "The list has two items\n- one of them\n- the other",
        ),
        (["第一章 总则和适用的范围", "第一条 为了维护秩序"], "第一章 总则和适用的范围\n第一条 为了维护秩序"),
        (["Short", "A line that is much longer than it"], "Short\nA line that is much longer than it"),
        (["One paragraph ends", "", "and one begins"], "One paragraph ends\n\nand one begins"),
    ],
)
def test_lines_of_a_paragraph_are_joined_and_others_are_not(parts: list[str], joined: str) -> None:
    assert joined_lines("\n".join(parts)) == joined


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_the_tidy_form_is_reached_in_one_step_and_changes_no_letters(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    letters = [c for c in unicodedata.normalize("NFC", text) if c.isalnum()]
    assert [c for c in once if c.isalnum()] == letters
