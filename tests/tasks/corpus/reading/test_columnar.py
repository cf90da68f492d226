"""Parquet and Arrow files give rows as JSON does: texts, numbers, lists and turns."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tasks.core.domain import named_files
from tasks.corpus.reading.conversations import conversation_in
from tasks.corpus.reading.rows import SourceError, read_rows

ROWS: list[dict[str, Any]] = [
    {"q": "One?", "a": "1", "refs": ["x", "y"], "on": date(2024, 4, 13), "cost": Decimal("7.50"), "n": None},
    {"q": "Two?", "a": "2", "refs": [], "on": None, "cost": None, "n": 3},
]


def written(folder: Path, name: str, rows: list[dict[str, Any]] = ROWS) -> Path:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    table, path = pa.Table.from_pylist(rows), folder / name
    if path.suffix == ".parquet":
        write_table(table, path)
        return path
    new = pa.ipc.new_file if "indexed" in name else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as sink, new(sink, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("name", ["rows.parquet", "stream.arrow", "indexed.arrow"])
def test_rows_come_with_their_number_days_and_exact_numbers_as_texts(tmp_path: Path, name: str) -> None:
    first, second = read_rows(written(tmp_path, name))
    assert first.fields == {**ROWS[0], "on": "2024-04-13", "cost": "7.50"}
    assert (second.number, second.fields["n"], second.fields["refs"]) == (2, 3, [])
    assert first.text.startswith('{"q": "One?", "a": "1"')


@pytest.mark.parametrize("name", ["rows.parquet", "stream.arrow", "indexed.arrow"])
def test_a_file_that_breaks_off_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match=rf"{name}: not readable as \w+ behind row 0"):
        list(read_rows(path))


def test_turns_are_found_as_a_list_of_objects_and_as_lists_beside_each_other(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    beside = {"from": ["human", "gpt"], "value": ["Q", "A"]}
    for name, given in (("a.parquet", turns), ("b.parquet", beside)):
        [row] = read_rows(written(tmp_path, name, [{"conversations": given}]))
        assert conversation_in(row.fields) == ("conversations", turns)


def test_a_folder_stands_for_the_rows_below_it_without_what_the_library_caches(tmp_path: Path) -> None:
    (tmp_path / "chat/train").mkdir(parents=True)
    for name in ("chat/b.parquet", "chat/train/data-00000-of-00001.arrow", "chat/train/cache-1.arrow"):
        written(tmp_path, name)
    (tmp_path / "chat/train/state.json").write_text("{}")
    found = [path.relative_to(tmp_path).as_posix() for path in named_files(tmp_path, "chat")]
    assert found == ["chat/b.parquet", "chat/train/data-00000-of-00001.arrow"]
    assert named_files(tmp_path, "chat/train/*.json") == [tmp_path / "chat/train/state.json"]
    assert named_files(tmp_path, "none") == []
