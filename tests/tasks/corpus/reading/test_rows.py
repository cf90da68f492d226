"""JSON as people keep it becomes rows; what cannot be one says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.core.records import BadLine
from tasks.corpus.reading.lines import bounded_lines, by_cause, encoding_of
from tasks.corpus.reading.rows import SourceError
from tests.read_fields import causes, fields


@pytest.mark.parametrize(
    "content",
    [
        '{"q": "A, b]", "n": 1},\n{"q": "C", "n": null},\n',
        '{"q": "A, b]", "n": 1,}\n{"q": "C", "n": NaN}\n',
        '[\n{"q": "A, b]", "n": 1},\n{"q": "C", "n": NaN},\n]\n',
        '[{"q": "A, b]", "n": 1,},\n{"q": "C", "n": null,},]',
        '{"version": 2, "data": [{"q": "A, b]", "n": 1}, {"q": "C", "n": null}]}',
        '{\n  "version": 2,\n  "data": [\n    {"q": "A, b]", "n": 1},\n    {"q": "C", "n": null}\n  ]\n}\n',
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_json_is_read_with_trailing_commas_nan_as_a_list_and_in_a_wrapper(
    tmp_path: Path, content: str, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    assert fields(path, content) == [{"q": "A, b]", "n": 1}, {"q": "C", "n": None}]
    assert causes(path) == []


@pytest.mark.parametrize(
    "content",
    [
        '{"q": "A}{", "n": 1}{"q": "C", "n": 2}{"q": "E", "n": 3}',
        '{"q": "A}{", "n": 1}\n{"q": "C", "n": 2,}, {"q": "E", "n": 3}\n',
        '{"q": "A}{", "n": 1} {"q": "C", "n": 2}\n\n{"q": "E", "n": 3}\n',
        '{\n  "q": "A}{",\n  "n": 1\n}\n{\n  "q": "C",\n  "n": 2\n},\n{\n  "q": "E",\n  "n": 3\n}\n',
    ],
)
@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_objects_without_a_list_are_read_wherever_their_lines_end(tmp_path: Path, content: str, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    assert fields(path, content) == [{"q": "A}{", "n": 1}, {"q": "C", "n": 2}, {"q": "E", "n": 3}]
    assert causes(path) == []


def test_objects_over_several_lines_that_hold_lists_are_rows_and_no_list_around_them(tmp_path: Path) -> None:
    rows = [{"question": "Why?", "answer": "So.", "notes": [{"by": n}]} for n in range(2)]
    for kept in (rows, rows[:1]):
        assert fields(tmp_path / "a.json", "\n".join(json.dumps(row, indent=2) for row in kept)) == kept


def test_a_long_line_of_objects_is_read(tmp_path: Path) -> None:
    rows = [{"q": f"Question {n}?", "a": "x" * 900} for n in range(1200)]
    assert fields(tmp_path / "a.jsonl", "".join(map(json.dumps, rows))) == rows


def test_of_several_objects_on_a_line_the_broken_one_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert fields(path, '{"q": 1}\n{"q": 2}{"q": }\n{"q": 4} and more\n{"q": 5}\n') == [{"q": 1}, {"q": 2}, {"q": 5}]
    assert [number for number, _ in causes(path)] == [2, 3]


def test_a_file_that_is_no_json_says_where_it_ends_to_be(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nor JSON lines \(Expecting ',' delimiter: line 3 column 1"):
        fields(tmp_path / "a.json", '{\n"q": 1\n"a": 2}\n')


def test_a_second_list_in_a_file_is_said_not_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert fields(path, '{\n"train": [{"q": 1}],\n"test": [{"q": 2}]\n}') == [{"q": 1}]
    assert causes(path) == [(2, "what follows the list is not read")]


SWEDISH = "Får man gå så här på bryggan?\nBåten på sjön får ställas här.\nVaktmästaren sköter nycklarna på ön.\n"
CHINESE = "年检标志在哪里可以办理？\n年检标志可以在一号窗口办理，每周一上午开放。\n停车规定里说的临时牌照呢？\n"
POLISH = "Gdzie można naładować łódź?\nŁódź ładuje się przy słupie numer trzy.\nKażdego dnia, także w święta.\n"
RUSSIAN = "Где можно зарядить лодку?\nЛодку заряжают у третьего столба.\nКаждый день, кроме субботы.\n"


@pytest.mark.parametrize(
    "text, encoding",
    [
        (SWEDISH, "cp1252"),
        (SWEDISH, "mac_roman"),
        (SWEDISH, "utf-16"),
        (SWEDISH, "utf-8-sig"),
        (CHINESE, "gb18030"),
        (POLISH, "cp1250"),
        (RUSSIAN, "cp1251"),
    ],
)
def test_a_text_is_decoded_from_the_encoding_it_is_in(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_text(text * 3, encoding=encoding)
    assert encoding_of(tmp_path / "a.txt") == encoding
    assert [line.text for line in bounded_lines(tmp_path / "a.txt")] == (text * 3).splitlines()


def test_utf8_with_broken_lines_stays_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(SWEDISH.encode() * 3 + b"\xff\n\xfe\n\xfd\n")
    assert encoding_of(tmp_path / "a.txt") == "utf-8-sig"
    assert [line.text for line in bounded_lines(tmp_path / "a.txt")][-3:] == ["\udcff", "\udcfe", "\udcfd"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_in_any_way(tmp_path: Path, end: str) -> None:
    (tmp_path / "a.txt").write_bytes(f"a{end}b c{end}{end}d".encode())
    assert [(line.number, line.text) for line in bounded_lines(tmp_path / "a.txt")] == [
        (1, "a"), (2, "b c"), (3, ""), (4, "d")
    ]  # fmt: skip


def test_bad_lines_are_counted_by_cause_with_the_first_of_each() -> None:
    bad = [BadLine(file="x/a.csv", line=n, cause=f"lines {n} to {n + 1}: not CSV", text=f"row {n}") for n in (3, 5)]
    bad.append(BadLine(file="x/a.csv", line=9, cause="empty", text=""))
    assert by_cause(bad) == [
        "2 rows not used: lines 3 to 4: not CSV (first: line 3: 'row 3')",
        "1 row not used: empty (first: line 9: '')",
    ]
