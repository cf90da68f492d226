"""CSV and XLSX as people keep them become rows; what cannot be one says why."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.corpus.reading.columns import named
from tasks.corpus.reading.lines import archive_problem
from tasks.corpus.reading.rows import SourceError, read_rows
from tests.read_fields import causes, fields


def workbook(**sheets: Sequence[Sequence[Any]]) -> Any:
    """A workbook of these rows by sheet."""
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for cells in rows:
            sheet.append(cells)
    return book


def save(book: Any, path: Path, change: Callable[[str, bytes], bytes] = lambda _, content: content) -> None:
    """Save a workbook with changes to the files within."""
    book.save(path.with_suffix(".whole"))
    with zipfile.ZipFile(path.with_suffix(".whole")) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))


@pytest.mark.parametrize(
    "content",
    [
        '"Question\n(as asked)",Answer\nWhy?,"So, there"\n',
        "FAQ of the club,\n,\nQuestion,Answer\nWhy?,\"So, there\"\n",
        'Question,Answer\rWhy?,"So, there"\r',
        'Question ;Answer\nWhy?;"So, there"\n;\n',
        "Question\tAnswer\nWhy?\tSo, there\n",
        '\ufeffQuestion|Answer\r\nWhy?|"So, there"\r\n',
        "Question,Answer\nWhy?,So\\, there\nWhat?,\"He said \\\"no\\\"\"\n",
    ],
)  # fmt: skip
def test_a_table_is_read_whatever_its_first_line_looks_like(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_bytes(content.encode())
    row = fields(tmp_path / "a.csv")[0]
    assert [*row.values()] == ["Why?", "So, there"]
    assert re.match("Question", next(iter(row)))


@pytest.mark.parametrize(
    "content, rows, said",
    [
        ('q,a\n"Who?","He said \\"0\\" and left."\n', [{"q": "Who?", "a": 'He said "0" and left.'}], []),
        ('q,a\n"Where?","In C:\\new"\n', [{"q": "Where?", "a": "In C:\\new"}], []),
        ("Fees 2024,\nq,a\nWhy?,So.\n", [{"q": "Why?", "a": "So."}], [(1, "it stands above the header")]),
        (
            ",q,note,a,note,\n0,Why?,x,So.,y,\n",  # columns without a name or with the same
            [{"column 1": "0", "q": "Why?", "note #1": "x", "a": "So.", "note #2": "y"}],
            [],
        ),
        (
            "q,a\nWhy?,So.\nq,a\nWho?,I.\n",
            [{"q": "Why?", "a": "So."}, {"q": "Who?", "a": "I."}],
            [(3, "it repeats the header")],
        ),
        (
            "question,answer\n问题,答案\nWhy?,So.\n",
            [{"question": "Why?", "answer": "So."}],
            [(2, "it names columns: a second header")],
        ),
        ("|q|a|\n|:---|---:|\n|Why?|So.|\n", [{"q": "Why?", "a": "So."}], [(2, "it is a rule of dashes")]),
    ],
)
def test_a_table_s_rows_are_read_and_what_is_none_is_said(
    tmp_path: Path, content: str, rows: list[dict[str, str]], said: list[tuple[int, str]]
) -> None:
    found = fields(tmp_path / "a.csv", content)
    assert [{key: value for key, value in row.items() if key in rows[0]} for row in found] == rows
    assert causes(tmp_path / "a.csv") == said


def test_a_table_without_a_header_keeps_its_first_row(tmp_path: Path) -> None:
    found = fields(tmp_path / "a.csv", "How early?,At six.\nHow late?,At ten.\nWho?,The board.\n")
    assert [row["column 1"] for row in found] == ["How early?", "How late?", "Who?"]


def test_a_header_that_cannot_be_decoded_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"Fr\xe5ga;Svar\nWhy?;So.\n")
    with pytest.raises(
        SourceError,
        match=r"its header \(line 1\) cannot be read \(not UTF-8, but likely cp1252\); save the file as UTF-8",
    ):
        fields(tmp_path / "a.csv")


def test_a_sheet_is_read_as_displayed_whatever_dimension_it_says(tmp_path: Path) -> None:
    book = workbook(Fees=[["FAQ"], ["Question", "Answer", "Topic"], ["How much?", 0.075, "fees"], ["How long?", 3]])
    book.active["B3"].number_format = "0.0%"
    book.active.merge_cells("A1:C1")
    book.active.merge_cells("C3:C4")
    save(book, tmp_path / "a.xlsx", lambda _, xml: re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', xml))
    assert fields(tmp_path / "a.xlsx") == [
        {"Question": "How much?", "Answer": "7.5%", "Topic": "fees"},
        {"Question": "How long?", "Answer": "3", "Topic": "fees"},
    ]


def test_a_header_of_two_rows_leaves_nameless_columns_and_is_no_row(tmp_path: Path) -> None:
    below = [[None, "(short)", "(long)"], ["How deep?", "2 m", "Two metres."], ["Who?", "I"]]
    book = workbook(Sheet=[["Question", "Answer"], *below])
    book.active.merge_cells("A1:A2")
    book.active.merge_cells("B1:C1")
    save(book, tmp_path / "a.xlsx")
    assert fields(tmp_path / "a.xlsx") == [
        {"Question": "How deep?", "Answer": "2 m", "column 3": "Two metres."},
        {"Question": "Who?", "Answer": "I"},
    ]
    assert causes(tmp_path / "a.xlsx") == [(2, "it repeats the header")]


def test_of_several_sheets_those_with_the_questions_are_read_and_the_others_named(tmp_path: Path) -> None:
    header = ["Question", "Answer"]
    sheets = {"Fees": [header, ["How much?", "Ask."]], "Harbour": [header, ["How deep?", "Ask."]], "Empty": []}
    save(workbook(**{"Read me": [["Written by", "the board"]]}, **sheets), tmp_path / "a.xlsx")
    rows = [*read_rows(tmp_path / "a.xlsx")]
    assert [(row.place, row.fields["Question"]) for row in rows if not row.cause] == [
        ("2", "How much?"), ("Harbour!2", "How deep?")
    ]  # fmt: skip
    assert [row.cause for row in rows if row.cause] == [
        "sheet 'Read me' is not read (0 rows): its columns are not those of 'Fees'"
    ]


def test_sheets_with_the_same_headings_are_one_table_and_what_is_not_read_is_counted(tmp_path: Path) -> None:
    headers = {"Old": ("question", "answer"), "New": ("question", "answer"), "More": ("Question ", "ANSWER")}
    book = workbook(**{name: [row, (f"{name} why?", "So."), (f"{name} who?", "I.")] for name, row in headers.items()})
    book["Old"].sheet_state = "hidden"
    save(book, tmp_path / "a.xlsx")
    asked = [row["question"] for row in fields(tmp_path / "a.xlsx")]
    assert asked == ["New why?", "New who?", "More why?", "More who?"]
    assert causes(tmp_path / "a.xlsx") == [(1, "sheet 'Old' is not read (2 rows): it is hidden")]


@pytest.mark.parametrize("name", ["old.xlsx", "old.docx", "old.pptx"])
def test_an_old_office_file_or_one_with_a_password_says_what_to_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500))
    assert "save it as .xlsx, .docx or .pptx without one" in archive_problem(tmp_path / name)


def test_a_damaged_sheet_is_refused_by_name(tmp_path: Path) -> None:
    cut = lambda name, xml: xml[:-30] if name.endswith("sheet1.xml") else xml  # noqa: E731
    save(workbook(Sheet=[["q", "a"]]), tmp_path / "a.xlsx", cut)
    with pytest.raises(SourceError, match="not readable as XLSX"):
        fields(tmp_path / "a.xlsx")


@pytest.mark.parametrize(
    "columns, mapped",
    [
        (["A", "answer", "question"], {"question": "question", "answer": "answer"}),
        (["Fråga (intern)", " SVAR ", "Ämne"], {"question": "Fråga (intern)", "answer": " SVAR ", "category": "Ämne"}),
        (
            ["编号", "问题", "答案：", "上下文"],
            {"id": "编号", "question": "问题", "answer": "答案：", "input": "上下文"},
        ),
        (["input", "output"], {"question": "input", "answer": "output"}),
        (["answer #1", "Question", "answer #2"], {"question": "Question", "answer": "answer #1"}),
        (["question", "distractor", "correct_answer"], {"question": "question", "answer": "correct_answer"}),
        (["context", "question", "answer_start"], {"question": "question", "input": "context"}),
        (["question", "answer", "goldAnswer"], {"question": "question", "answer": "goldAnswer"}),
        (["Question", "Answer ID", "Answer Text"], {"question": "Question", "answer": "Answer Text"}),
        (["Fråga", "Gammalt svar", "Nytt svar"], {"question": "Fråga", "answer": "Nytt svar"}),
        (
            ["Pregunta", "Respuesta incorrecta", "Respuesta correcta"],
            {"question": "Pregunta", "answer": "Respuesta correcta"},
        ),
        (["问题", "备注", "客服回复"], {"question": "问题", "answer": "客服回复"}),
        (["question", "answer (old)", "answer (new)"], {"question": "question", "answer": "answer (new)"}),
        (["Fråga", "Ansvar"], {"question": "Fråga"}),
        (["We had no good answer"], {}),
    ],
)
def test_columns_are_called_by_the_surest_name(columns: list[str], mapped: dict[str, str]) -> None:
    assert named(columns) == mapped
