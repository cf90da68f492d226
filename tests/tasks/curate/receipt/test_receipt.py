"""Receipts add up, or the stage says so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core import layout
from tasks.core.records import Dropped, Example, Receipt, make_item, write_jsonl
from tasks.core.tables import table_of, write_records
from tasks.curate.receipt.stage import (
    EXCERPT,
    QUARANTINES,
    TABLES,
    ReceiptError,
    content_schema,
    find_receipts,
    join,
    said_table,
    write_receipt,
)
from tests.examples import an_example

NOTHING_SAID = content_schema().empty_table()


def receipt(identity: str, stage: str, kept: bool, reason: str) -> Receipt:
    return Receipt(example_id=identity, stage=stage, kept=kept, reason=reason)


STEPS = [
    receipt("c", "ingest", False, "ad"),
    receipt("a", "ingest", True, "read"),
    receipt("b", "ingest", True, "read"),
    receipt("a", "dedup", True, "no better duplicate"),
    receipt("b", "dedup", False, "near duplicate"),
    receipt("a", "mix", True, "training"),
]


def joined(trained: list[str]) -> list[dict[str, object]]:
    said = {"id": "b", "origin": "human", "source": ["faq/1"], "instruction": "Why?", "output": "Because."}
    table = pa.Table.from_pylist([said], schema=content_schema())
    return join(table_of(STEPS, Receipt), table, pa.array(trained, type=pa.string())).to_pylist()


def test_a_row_tells_the_story_in_order_and_the_last_word() -> None:
    rows = joined(["a"])
    assert [row["example_id"] for row in rows] == ["a", "b", "c"]
    assert [row["trained"] for row in rows] == [True, False, False]
    assert [row["reason"] for row in rows] == ["training", "near duplicate", "ad"]
    assert [[step["stage"] for step in row["story"]] for row in rows] == [  # type: ignore[attr-defined]
        ["ingest", "dedup", "mix"],
        ["ingest", "dedup"],
        ["ingest"],
    ]
    assert [(row["origin"], row["instruction"]) for row in rows] == [(None, None), ("human", "Why?"), (None, None)]


def test_training_on_what_its_last_step_dropped_is_an_error() -> None:
    with pytest.raises(ReceiptError, match="no receipt that keeps them, first b"):
        joined(["b"])


def test_no_receipts_at_all_give_no_rows() -> None:
    assert join(table_of([], Receipt), NOTHING_SAID, pa.array([], type=pa.string())).num_rows == 0


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=30))
def test_every_id_has_one_row_and_no_step_is_lost(steps: list[tuple[str, bool]]) -> None:
    receipts = [receipt(name, str(place), kept, "x") for place, (name, kept) in enumerate(steps)]
    rows = join(table_of(receipts, Receipt), NOTHING_SAID, pa.array([], type=pa.string())).to_pylist()
    stories = {row["example_id"]: [step["stage"] for step in row["story"]] for row in rows}
    assert stories == {name: [r.stage for r in receipts if r.example_id == name] for name in sorted(dict(steps))}


def example(number: int, origin: str = "human") -> Example:
    return an_example(f"Question {number}? " + "x" * 500, "An answer.", origin=origin, source=("faq/1",))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 examples that construct kept, one that it dropped, one laid aside, one of a user, each with its receipt."""
    monkeypatch.chdir(tmp_path)
    for path in TABLES:
        write_records(path, [], Example)
    kept = [example(number) for number in range(40)]
    write_records(layout.CONSTRUCT / "examples.parquet", kept, Example)
    write_records(layout.FEEDBACK / "examples.parquet", [example(50, "feedback")], Example)
    fields = ("id", "origin", "instruction", "output", "source")
    dropped = Dropped(**example(41, "self_qa").model_dump(include=set(fields)), reason="not grounded", score=0.5)
    write_jsonl(QUARANTINES[1], [dropped])
    QUARANTINES[0].parent.mkdir(parents=True, exist_ok=True)
    QUARANTINES[0].write_text(json.dumps({"file": "f", "line": 1, "cause": "not UTF-8", "text": "?"}) + "\n")
    item = make_item(set="domain", prompt="Asked?", reference="So.", source=("faq/9",))
    write_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", [item])
    write_jsonl(layout.EVALUATION_ITEMS / "dialogue.jsonl", [])
    aside = an_example("Asked?", "So.", source=("faq/9",))
    receipts = [receipt(e.id, "construct", True, "read") for e in [*kept, example(50, "feedback")]]
    receipts += [receipt(dropped.id, "construct", False, "not grounded"), receipt(aside.id, "ingest", False, "aside")]
    write_records(layout.CONSTRUCT / "receipt.parquet", receipts, Receipt)
    write_jsonl(layout.MIX / "train.jsonl", kept[:3])
    return tmp_path


def test_every_example_says_what_it_was_wherever_it_ended_but_users_words_are_not_copied(place: Path) -> None:
    said = {row["id"]: row for row in said_table().to_pylist()}
    assert len(said) == 43
    assert said[example(1).id]["instruction"] == ("Question 1? " + "x" * 500)[:EXCERPT]
    assert said[example(41, "self_qa").id]["origin"] == "self_qa"
    theirs = {"id": example(50, "feedback").id, "origin": "feedback", "source": ["faq/1"]}
    assert said[example(50, "feedback").id] == {**theirs, "instruction": "", "output": ""}


def test_the_file_is_sorted_and_examples_are_found_by_the_beginning_of_their_id(place: Path) -> None:
    assert write_receipt(Path("whole.parquet"), (layout.CONSTRUCT,), layout.MIX / "train.jsonl") == (43, 3)
    rows = pq.read_table("whole.parquet").to_pylist()
    assert [row["example_id"] for row in rows] == sorted(row["example_id"] for row in rows)
    assert all(row["origin"] for row in rows), "nothing is unknown"
    wanted = example(7).id
    assert [row["example_id"] for row in find_receipts(Path("whole.parquet"), wanted[:12])] == [wanted]


@pytest.mark.parametrize("prefix", ["", "abc", "zzzzzzzz", "' OR 1=1", "00000000"])
def test_what_is_no_beginning_of_an_id_finds_nothing(place: Path, prefix: str) -> None:
    write_receipt(Path("whole.parquet"), (layout.CONSTRUCT,), layout.MIX / "train.jsonl")
    assert find_receipts(Path("whole.parquet"), prefix) == []


def test_training_on_what_has_no_receipt_is_an_error_and_leaves_no_file(place: Path) -> None:
    write_jsonl(layout.MIX / "train.jsonl", [example(99)])
    with pytest.raises(ReceiptError, match="1 trained examples have no receipt"):
        write_receipt(Path("whole.parquet"), (layout.CONSTRUCT,), layout.MIX / "train.jsonl")
    assert not Path("whole.parquet").exists()
