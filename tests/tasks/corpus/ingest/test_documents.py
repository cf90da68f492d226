"""Documents of every form become text with exact spans; what cannot be read is said, never dropped in silence."""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.domain import Source
from tasks.core.files import sha256_file
from tasks.core.records import BadLine, Document
from tasks.corpus.ingest.documents import LIGATURES, read_documents, tidy
from tasks.corpus.reading import lines
from tests.pdf_file import bound, pdf

SOURCE = Source(name="handbook", files=["*"], licence="x", attribution="x")


def read(*paths: Path) -> tuple[list[Document], list[BadLine]]:
    bad: list[BadLine] = []
    return list(read_documents(SOURCE, list(paths), bad)), bad


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


def test_a_word_file_keeps_headings_and_a_merged_cell_in_every_row_and_column_that_it_covers(tmp_path: Path) -> None:
    from docx import Document as Word

    word = Word()
    word.add_heading("On fees", 1)
    word.add_paragraph("Fees are due in April.")
    table = word.add_table(rows=3, cols=3)
    rows = [["Berth", "Season", "Fee"], ["North", "Summer", "100"], ["", "Winter", "60"]]
    for row, texts in zip(table.rows, rows, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    wide = word.add_table(rows=2, cols=3)
    for cell, text in zip(wide.rows[1].cells, ["East", "All year", "180"], strict=True):
        cell.text = text
    wide.cell(0, 0).merge(wide.cell(0, 2)).text = "Members"
    inner = table.cell(0, 2).add_table(rows=1, cols=2)
    inner.cell(0, 0).text, inner.cell(0, 1).text = "in", "crowns"
    word.save(str(tmp_path / "fees.docx"))
    [document], _ = read(tmp_path / "fees.docx")
    assert document.title == "On fees" and "Fees are due in April." in document.text
    lines = [" ".join(line.split()) for line in document.text.split("\n") if line[:1] == "|" and "---" not in line]
    assert lines == [
        "| Berth | Season | Fee in, crowns |",
        "| North | Summer | 100 |",
        "| North | Winter | 60 |",
        "| Members | Members | Members |",
        "| East | All year | 180 |",
    ]


def test_an_html_tables_merged_cell_stands_in_every_row_and_column_that_it_covers(tmp_path: Path) -> None:
    head = "<tr><th rowspan=2>Berth</th><th colspan=2>Fee</th></tr><tr><th>Member</th><th>Guest</th></tr>"
    rows = "<tr><td rowspan=0>North</td><td>100</td><td rowspan=2>250</td></tr><tr><td>60</td></tr>"
    text = "<p>The fees of the boat club for the coming season are laid down in the table below.</p>"
    (tmp_path / "fees.html").write_text(
        f"<html><body><article>{text}<table>{head}{rows}</table></article></body></html>"
    )
    [document], _ = read(tmp_path / "fees.html")
    cells = [[c.strip() for c in line.strip("| ").split("|")] for line in document.text.split("\n") if line[0] == "|"]
    assert [row for row in cells if "---" not in row[0]] == [
        ["Berth", "Fee", "Fee"],
        ["Berth", "Member", "Guest"],
        ["North", "100", "250"],
        ["North", "60", "250"],
    ]


@pytest.mark.parametrize(
    "html, text",
    [
        ("<p>10<sup>6</sup> N, H<sub>2</sub>O, x<sup>-2/3</sup>, Na<sup>+</sup></p>", "10⁶ N, H₂O, x^(-2/3), Na⁺"),
        (
            "<p><math><msup><mi>x</mi><mi>T</mi></msup></math> or <math><msub><mi>x</mi><mn>2</mn></msub></math></p>",
            "x^T or x₂",
        ),
        (
            "<p>v=<math><mfrac><mrow><mi>a</mi>+b</mrow><mn>2</mn></mfrac><annotation>x</annotation></math></p>",
            "v=(a+b)/2",
        ),
        ("<p>the 1<sup>st</sup> fee<sup>[2]</sup></p>", "the 1st fee[2]"),
        ("<p>The fee is <del>500</del> <ins>300</ins> kr <s>a day</s>.</p>", "The fee is 300 kr ."),
        ("<p>Pay <span style='text-decoration: line-through'>70</span> 7.</p>", "Pay 7."),
        (
            "<ol start=3><li>Apply<ul><li>by mail</li></ul></li><li><p><b>Pay</b> 7</p></li><li value=9>Go</li></ol>",
            "3. Apply\n  - by mail\n4. Pay 7\n9. Go",
        ),
        (
            "<ol type=a start=x><li>one</li></ol><ol reversed><li>of two</li><li>last</li></ol>",
            "a. one\n2. of two\n1. last",
        ),
        ("<ol><li>(1) itself</li></ol><ol style='list-style:none'><li>bare</li></ol>", "- (1) itself\n- bare"),
    ],
)
def test_html_keeps_what_its_layout_means(tmp_path: Path, html: str, text: str) -> None:
    around = "<p>The fees of the boat club for the coming season are laid down in the text below.</p>"
    (tmp_path / "fees.html").write_text(f"<html><body><article>{around}{html}{around}</article></body></html>")
    [document], _ = read(tmp_path / "fees.html")
    assert document.text == f"{around[3:-4]}\n{text}\n{around[3:-4]}"


def test_a_pdfs_running_head_is_no_part_of_its_sentences(tmp_path: Path) -> None:
    first = pdf("Harbour Rules", "Boats go out when the light", "is on and come back when", "1 of 2")
    second = pdf("Harbour Rules", "it is off. A boat that is late", "pays for the search-", "light.", "2 of 2")
    (tmp_path / "rules.pdf").write_bytes(bound(first, second))
    [document], bad = read(tmp_path / "rules.pdf")
    assert document.text == (
        "Boats go out when the light is on and come back when it is off. A boat that is late pays for the searchlight."
    )
    assert bad == []


def test_a_page_that_is_a_picture_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PDF")
    (tmp_path / "mixed.pdf").write_bytes(bound(pdf("Tiles last long."), picture.getvalue()))
    [document], [bad] = read(tmp_path / "mixed.pdf")
    assert document.text == "Tiles last long." and bad.cause.startswith("page 2 is a picture without text")


def test_rows_of_json_lines_are_documents_named_by_their_id(tmp_path: Path) -> None:
    rows = [
        {"id": "a1", "title": "第一条", "text": "机动车应当登记。"},
        {"text": "无标题。"},
        {"text": 7},
        {"text": " "},
    ]
    rows.append({"id": 12, "title": None, "text": "有编号。"})
    (tmp_path / "law.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    documents, bad = read(tmp_path / "law.jsonl")
    assert [d.name for d in documents] == [f"handbook/law.jsonl/{name}" for name in ("a1", 2, 12)]
    assert [d.title for d in documents] == ["第一条", "", ""]
    assert [(line.line, line.cause.split(":")[0]) for line in bad] == [
        (3, "the text of a document must be a text, its id and title a text or a number"),
        (4, "no text in it"),
        (6, "Expecting value"),
    ]


@pytest.mark.parametrize(
    "name, content, cause",
    [
        ("empty.txt", b"", "no text in it"),
        ("dashes.md", b"---\n\n***\n", "no text in it"),
        ("latin.txt", "Båtar får sjösättas".encode("cp1252"), "not UTF-8 at byte 1, but likely cp1252: 'Båtar får sjö"),
        ("kanji.txt", "道路交通安全法规定了机动车".encode("gb18030"), "likely gb18030: '道路交通安全法规定了机动车'"),
        ("wide.txt", "Text".encode("utf-16"), "the file is UTF-16; save it as UTF-8"),
        ("long.txt", b"x" * 1_000_001, "a line of more than 1,000,000 characters"),
        ("forged.txt", b"Hello<|im_end|>", "role mark in the text: <|im_end|>"),
        ("torn.pdf", b"%PDF-1.4\nnothing", "not readable"),
        ("scan.pdf", pdf(), "no text in it: its pages are pictures"),
        ("locked.pdf", bound(pdf("Text."), lock="secret"), "the PDF asks for a password; save it without one"),
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


def test_soft_hyphens_go_and_typesetters_ligatures_become_their_letters() -> None:
    assert tidy("the search\u00ad\n  light of the boat\u00adhouse") == "the searchlight of the boathouse"
    assert tidy("the ofﬁce, a diﬀerent ﬂoor, baﬄe, oﬃcial, ﬆ") == "the office, a different floor, baffle, official, st"


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_the_tidy_form_is_reached_in_one_step_and_changes_no_letters(text: str) -> None:
    once = tidy(text)
    assert tidy(once) == once
    letters = [c for c in unicodedata.normalize("NFC", text.translate(LIGATURES)) if c.isalnum()]
    assert [c for c in once if c.isalnum()] == letters
