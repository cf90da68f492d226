"""Records as Arrow tables: whole files or none, whatever the batches."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import tables
from tasks.core.records import Example, Receipt, RecordError, Turn, make_example


def an_example(number: int = 1, **fields: object) -> Example:
    kept = {"language": "zh", "origin": "human", "source": ("FAQ/1", "law"), **fields}
    return make_example(instruction=f"机动车载物应当符合什么要求？{number}", output="应当符合核定的载质量。", **kept)


def test_examples_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    written = [an_example(1, history=(Turn(user="你好", assistant="您好"),)), an_example(2, evidence="第四十八条")]
    assert tables.write_records(path, iter(written), Example) == 2
    assert tables.read_records(path, Example) == written
    assert tables.count_rows(path) == 2


def test_a_file_without_rows_is_a_table_without_rows(tmp_path: Path) -> None:
    assert tables.write_records(tmp_path / "none.parquet", [], Receipt) == 0
    assert tables.read_records(tmp_path / "none.parquet", Receipt) == []


@given(sizes=st.lists(st.integers(min_value=0, max_value=7), max_size=6))
def test_the_sizes_of_the_batches_leave_no_mark_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("batches")
    records = [an_example(number) for number in range(sum(sizes))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP", 3)
        tables.write_records(folder / "at_once.parquet", records, Example)
        with tables.table_writer(folder / "in_parts.parquet", tables.schema_of(Example)) as writer:
            start = 0
            for size in sizes:
                writer.write(tables.table_of(records[start : start + size], Example))
                start += size
    assert (folder / "in_parts.parquet").read_bytes() == (folder / "at_once.parquet").read_bytes()


def test_batches_hold_at_most_the_rows_asked_for_and_only_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    tables.write_records(path, [an_example(number) for number in range(5)], Example)
    batches = list(tables.read_batches(path, rows=2, columns=["id"]))
    assert [batch.num_rows for batch in batches] == [2, 2, 1]
    assert batches[0].column_names == ["id"]


def test_kept_rows_are_copied_in_their_order_whatever_the_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [an_example(number) for number in range(5)]
    tables.write_records(tmp_path / "a.parquet", rows, Example)
    monkeypatch.setattr(tables, "read_batches", partial(tables.read_batches, rows=2))
    tables.copy_rows(tmp_path / "a.parquet", tmp_path / "b.parquet", [True, False, True, True, False], Example)
    assert tables.read_records(tmp_path / "b.parquet", Example) == [rows[0], rows[2], rows[3]]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    tables.write_records(path, [an_example()], Example)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError), tables.table_writer(path, tables.schema_of(Example)) as writer:
        writer.write(tables.table_of([an_example(2)], Example))
        raise ZeroDivisionError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_or_torn_file_says_which_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "examples.parquet"
    with pytest.raises(RecordError, match=r"examples\.parquet is missing; run the stage"):
        tables.read_records(path, Example)
    tables.write_records(path, [an_example()], Example)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RecordError, match=r"examples\.parquet is damaged"):
        tables.count_rows(path)
    with pytest.raises(RecordError, match=r"examples\.parquet is damaged"):
        tables.read_records(path, Example)
