"""JSON as people keep it becomes rows; what cannot be one says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
