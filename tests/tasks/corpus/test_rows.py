"""JSON as people keep it becomes rows; what cannot be one says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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


def test_a_second_list_in_a_file_is_said_not_to_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert fields(path, '{\n"train": [{"q": 1}],\n"test": [{"q": 2}]\n}') == [{"q": 1}]
    assert causes(path) == [(2, "what follows the list is not read")]


def test_a_long_list_with_trailing_commas_is_read_across_blocks(tmp_path: Path) -> None:
    rows = [{"q": f"Question {n}, or ]?", "a": "x" * 90} for n in range(2000)]
    content = "[" + ",\n".join(json.dumps(row)[:-1] + ",}" for row in rows) + ",]"
    assert fields(tmp_path / "a.json", content) == rows
