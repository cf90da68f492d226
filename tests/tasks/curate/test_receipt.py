"""Receipts add up, or the stage says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.curate.receipt import ReceiptError, join, write_parquet
from tasks.records import Receipt


def receipt(identity: str, stage: str, kept: bool, reason: str) -> Receipt:
    return Receipt(example_id=identity, stage=stage, kept=kept, reason=reason)


PARTS = [
    [receipt("a", "ingest", True, "read"), receipt("b", "ingest", True, "read"), receipt("c", "ingest", False, "ad")],
    [receipt("a", "dedup", True, "no better duplicate"), receipt("b", "dedup", False, "near duplicate")],
    [receipt("a", "mix", True, "training")],
]


def test_a_row_tells_the_story_and_the_last_word() -> None:
    rows = {row["example_id"]: row for row in join(PARTS, {"a"})}
    assert [rows[i]["trained"] for i in "abc"] == [True, False, False]
    assert [rows[i]["reason"] for i in "abc"] == ["training", "near duplicate", "ad"]
    assert [len(rows[i]["story"]) for i in "abc"] == [3, 2, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", [{"b"}, {"nobody"}])
def test_training_on_what_no_receipt_lets_through_is_an_error(trained: set[str]) -> None:
    with pytest.raises(ReceiptError, match="no receipt that keeps them"):
        join(PARTS, trained)


def test_equal_rows_give_equal_bytes_and_read_back(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = join(PARTS, {"a"})
    write_parquet(tmp_path / "one.parquet", rows)
    write_parquet(tmp_path / "two.parquet", rows)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert pq.read_table(tmp_path / "one.parquet").to_pylist() == rows
