"""Presentations become text: titles, lists, tables and notes of each slide, in the order in which they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tasks.core.domain import Source
from tasks.core.records import BadLine, Document
from tasks.corpus.ingest.documents import read_documents


@pytest.fixture
def deck() -> Any:
    from pptx import Presentation

    return Presentation()


def read(deck: Any, folder: Path) -> tuple[list[Document], list[BadLine]]:
    bad: list[BadLine] = []
    deck.save(str(folder / "fees.pptx"))
    return list(
        read_documents(Source(name="x", files=["*"], licence="x", attribution="x"), [folder / "fees.pptx"], bad)
    ), bad


def slide(deck: Any, title: str, *lines: tuple[int, str], notes: str = "") -> Any:
    """A slide of PowerPoint's own layout "Title and Content"; `lines` are levels and texts."""
    made = deck.slides.add_slide(deck.slide_layouts[1])
    made.shapes.title.text = title
    frame = made.placeholders[1].text_frame
    for number, (level, text) in enumerate(lines):
        paragraph = frame.paragraphs[0] if not number else frame.add_paragraph()
        paragraph.text, paragraph.level = text, level
    if notes:
        made.notes_slide.notes_text_frame.text = notes
    return made


def test_titles_lists_and_notes_are_read_slide_by_slide_and_hidden_slides_are_not(deck: Any, tmp_path: Path) -> None:
    slide(deck, "Harbour fees", (0, "Members"), (1, "pay in April & May"), (0, "Guests"), notes="Ask the <board>.")
    slide(deck, "Old", (0, "Nothing")).element.set("show", "0")
    slide(deck, "Berths", (0, "Forty."))
    [document], bad = read(deck, tmp_path)
    assert (document.title, bad) == ("Harbour fees", [])
    assert document.text.replace("\n\n", "\n").split("\n") == [
        "## Harbour fees", "* Members", "  + pay in April & May", "* Guests", "Ask the <board>.", "## Berths", "Forty.",
    ]  # fmt: skip


def test_a_tables_cells_keep_their_row_and_column_and_a_merged_one_stands_wherever_it_covers(
    deck: Any, tmp_path: Path
) -> None:
    from pptx.util import Inches

    made = slide(deck, "Fees", (0, "In crowns."))
    table = made.shapes.add_table(3, 3, Inches(1), Inches(5), Inches(6), Inches(1)).table
    for row, texts in enumerate([["Berth", "Season", "Fee"], ["North", "Summer", "100"], ["", "Winter | ice", "60"]]):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(1, 0).merge(table.cell(2, 0))
    [document], _ = read(deck, tmp_path)
    lines = [" ".join(line.split()) for line in document.text.split("\n") if line[:1] == "|"]
    assert lines == [
        "| Berth | Season | Fee |",
        "| --- | --- | --- |",
        "| North | Summer | 100 |",
        "| North | Winter \\| ice | 60 |",
    ]


def test_shapes_are_read_from_the_top_groups_too_and_what_is_raised_or_struck_is_told(
    deck: Any, tmp_path: Path
) -> None:
    from pptx.util import Inches

    made = deck.slides.add_slide(deck.slide_layouts[6])
    low = made.shapes.add_textbox(Inches(1), Inches(6), Inches(2), Inches(1)).text_frame.paragraphs[0]
    for text, form in (("10", {}), ("6", {"baseline": "30000"}), (" N, not ", {}), ("500", {"strike": "sngStrike"})):
        run = low.add_run()
        run.text = text
        for name, value in form.items():
            run.font._element.set(name, value)
    group = made.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(1), Inches(2), Inches(1)).text_frame.text = "Above.\vBelow."
    [document], _ = read(deck, tmp_path)
    assert [line.rstrip() for line in document.text.split("\n") if line] == ["Above.", "Below.", "10⁶ N, not"]


def test_a_slide_of_pictures_alone_is_named(deck: Any, tmp_path: Path) -> None:
    slide(deck, "Fees", (0, "Two crowns."))
    Image.new("RGB", (2, 2)).save(tmp_path / "scan.png")
    deck.slides.add_slide(deck.slide_layouts[5]).shapes.add_picture(str(tmp_path / "scan.png"), 0, 0)
    [document], [bad] = read(deck, tmp_path)
    assert document.text.endswith("Two crowns.")
    assert bad.cause == "page 2 is a picture without text: put what it says into the slide's notes"


def test_every_layout_of_powerpoint_is_read_though_nothing_stands_in_it(deck: Any, tmp_path: Path) -> None:
    for layout in deck.slide_layouts:
        deck.slides.add_slide(layout)
    documents, [bad] = read(deck, tmp_path)
    assert (documents, bad.cause) == ([], "no text in it")
