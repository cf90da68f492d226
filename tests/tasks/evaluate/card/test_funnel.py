"""The funnel counts each example once a stage, by its last step there."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.core import layout
from tasks.core.records import Example, Receipt, RecordError
from tasks.core.tables import table_of, write_records
from tasks.curate.mix.stage import write_counts
from tasks.curate.receipt.stage import join
from tasks.curate.receipt.texts import said_schema
from tasks.evaluate.card.funnel import read_funnel


def step(identity: str, stage: str, kept: bool, reason: str, score: float | None = None) -> Receipt:
    return Receipt(example_id=identity, stage=stage, kept=kept, reason=reason, score=score)


# a is trained on; b and c are duplicates; d is general replay; e was generated twice, the second time in vain.
STEPS = [
    *(step(identity, "ingest", True, "read") for identity in "abcd"),
    step("e", "construct", True, "self_qa"),
    step("e", "construct", False, "not novel"),
    *(step(identity, "construct", True, "human") for identity in "abc"),
    step("a", "dedup", True, "no better duplicate"),
    step("b", "dedup", False, "near duplicate", 0.9),
    step("c", "dedup", False, "near duplicate", 0.8),
    step("a", "mix", True, "training"),
    step("d", "mix", False, "replay has enough"),
]


def receipt_file(path: Path) -> Path:
    said: list[dict[str, object]] = [
        {"id": i, "origin": "general" if i == "d" else "human", "source": [], "instruction": f"{i}?", "output": ""}
        for i in "abcd"
    ]
    table = join(table_of(STEPS, Receipt), pa.Table.from_pylist(said, schema=said_schema()), pa.array(["a"]))
    pq.write_table(table, path)
    return path


def test_each_lane_counts_what_its_stages_kept_and_dropped(tmp_path: Path) -> None:
    funnel = read_funnel(receipt_file(tmp_path / "receipt.parquet"))
    domain, general = funnel.lanes
    assert [(p.stage, p.kept, sum(drop.count for drop in p.drops)) for p in domain.stages] == [
        ("ingest", 3, 0),
        ("construct", 3, 1),
        ("dedup", 1, 2),
        ("mix", 1, 0),
    ]
    assert [(p.stage, p.kept, sum(drop.count for drop in p.drops)) for p in general.stages] == [
        ("ingest", 1, 0),
        ("mix", 0, 1),
    ]
    assert (domain.seen, domain.trained, general.trained) == (4, 1, 0)
    assert (funnel.seen, funnel.trained) == ({"general": 1, "human": 3, "unknown": 1}, {"human": 1})


def test_every_reason_has_its_samples_and_says_whether_they_are_of_other_use(tmp_path: Path) -> None:
    drops = {drop.reason: drop for drop in read_funnel(receipt_file(tmp_path / "receipt.parquet")).drops}
    assert list(drops) == ["not novel", "near duplicate", "replay has enough"]
    assert [(s["instruction"], s["score"]) for s in drops["near duplicate"].samples] == [("b?", 0.9), ("c?", 0.8)]
    assert [drop.reserved for drop in drops.values()] == [False, False, True]


def test_the_plot_counts_the_rows_of_the_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for stage in ("ingest", "feedback", "construct", "validate", "dedup"):
        write_records(layout.INGEST.parent / stage / "examples.parquet", [], Example)
    counts = {"domain": 5, "replay": 3, "train": 7}
    with pytest.raises(RecordError, match="select"):
        write_counts(counts)
    write_records(layout.SELECT / "examples.parquet", [], Example)
    write_counts(counts)
    lines = (layout.PLOTS / "data_counts.csv").read_text().splitlines()
    assert lines[0] == "stage,examples" and lines[-3:] == ["leak guard,5", "replay added,3", "train,7"]
