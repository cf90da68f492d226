"""A table's cell can be told in the passage that it lies in: by its row, and by the heading of its column."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.domain import Source
from tasks.corpus.construct.self_qa import chunk
from tasks.corpus.ingest.documents import read_documents
from tests.construct_root import document
from tests.tasks.corpus.construct.test_self_qa import letters

ROWS = [("Berth", "Summer fee", "Winter fee"), *((f"Pier {n}", f"{n}00 kr", f"{n}50 kr") for n in range(10, 30))]


def docx(path: Path) -> None:
    from docx import Document as Word

    word = Word()
    word.add_paragraph("The fees of the harbour.")
    table = word.add_table(rows=len(ROWS), cols=3)
    for row, texts in zip(table.rows, ROWS, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    word.add_paragraph("They are due in April.")
    word.save(str(path))


def pptx(path: Path) -> None:
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    slide.shapes.title.text = "The fees of the harbour."
    table = slide.shapes.add_table(len(ROWS), 3, Inches(1), Inches(2), Inches(6), Inches(4)).table
    for row, texts in zip(table.rows, ROWS, strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    slide.notes_slide.notes_text_frame.text = "They are due in April."
    deck.save(str(path))


def html(path: Path) -> None:
    rows = "".join(f"<tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr>" for texts in ROWS[1:])
    head = "".join(f"<th>{text}</th>" for text in ROWS[0])
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    text = "<p>The fees of the harbour for the coming season are laid down in the table below.</p>"
    path.write_text(f"<html><body><article>{text}{table}<p>They are due in April.</p></article></body></html>")


@pytest.mark.parametrize("write", [docx, pptx, html])
@pytest.mark.parametrize("overlap", [0, 40])
def test_every_passage_of_a_table_says_the_headings_and_is_no_longer_than_others(
    write: Callable[[Path], None], overlap: int, tmp_path: Path
) -> None:
    path = tmp_path / f"fees.{write.__name__}"
    write(path)
    [found] = read_documents(Source(name="x", files=["*"], licence="x", attribution="x"), [path], [])
    chunks = chunk(found, letters, 200, overlap)
    assert len(chunks) >= 5
    for row in ROWS[1:]:
        whole = [one.head + one.text for one in chunks if all(cell in one.text for cell in row)]
        assert whole, row
        for text in whole:
            lines = [[cell.strip() for cell in line.strip(" |").split("|")] for line in text.split("\n")]
            assert lines.index(list(ROWS[0])) < lines.index(list(row))
    assert all(len(one.head + one.text) <= 200 for one in chunks)
    assert all(found.text[one.start : one.end] == one.text for one in chunks)
    assert chunks[0].head == "" and chunks[-1].text.endswith("They are due in April.")


def test_a_heading_longer_than_half_a_passage_is_left_out() -> None:
    text = "| A long heading | of a column |\n| --- | --- |\n" + "| one | two |\n" * 9
    assert {one.head for one in chunk(document("a.md", text), letters, 60, 0)} == {""}
    assert {one.head for one in chunk(document("a.md", text), letters, 80, 0)[1:]} == {text.split("\n")[0] + "\n"}
