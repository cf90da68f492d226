"""Benchmarks of a domain, run by the real OpenCompass on a two-layer model: its own, and two by name."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.records import make_item, write_jsonl
from tasks.evaluate.run import stage

pytestmark = pytest.mark.slow

DOMAIN = Path("domains/construction")
# Questions and answers of our own; a model of two layers answers none of them.
COLOURS = [{"question": f"Which colour is thing {number}?", "answer": "blue"} for number in range(8)]
CONFIG = """
from opencompass.datasets import JsonlDataset
from opencompass.openicl.icl_evaluator import AccwithDetailsEvaluator
from opencompass.openicl.icl_inferencer import GenInferencer
from opencompass.openicl.icl_prompt_template import PromptTemplate
from opencompass.openicl.icl_retriever import ZeroRetriever

rounds = [dict(role="SYSTEM", prompt="One word."), dict(role="HUMAN", prompt="{question}"), dict(role="BOT", prompt="")]
colours_datasets = [
    dict(
        abbr="colours",
        type=JsonlDataset,
        path="colours.jsonl",
        reader_cfg=dict(input_columns=["question"], output_column="answer"),
        infer_cfg=dict(
            prompt_template=dict(type=PromptTemplate, template=dict(round=rounds)),
            retriever=dict(type=ZeroRetriever),
            inferencer=dict(type=GenInferencer, max_out_len=4),
        ),
        eval_cfg=dict(evaluator=dict(type=AccwithDetailsEvaluator)),
    )
]
"""
SUMS = [{"question": f"What is {one} and 1?", "answer": f"Add them.\n#### {one + 1}"} for one in range(6)]
LAW = [
    ("question", "A", "B", "C", "D", "answer"),
    *((f"第{one}条?", "甲", "乙", "丙", "丁", "ABCD"[one % 4]) for one in range(6)),
]
SETS: list[dict[str, Any]] = [
    {"name": "colours", "config": "evaluation/colours/colours.py", "gate": {"floor": 0.5}},
    {"name": "sums", "opencompass": "gsm8k_gen", "data": "evaluation/opencompass", "gate": "superiority", "most": 5},
    {"name": "law", "opencompass": "ceval_ppl", "data": "evaluation/opencompass", "only": ["ceval-law"]},
]


def lay_sets(folder: Path, sets: list[dict[str, Any]]) -> None:
    (folder / "evaluation.yaml").write_text(yaml.safe_dump(sets, sort_keys=False, allow_unicode=True))


def lay_data(folder: Path) -> None:
    """A user's configuration with its rows, and rows of our own as OpenCompass's loaders look for theirs."""
    own, gsm8k, ceval = (folder / "evaluation" / name for name in ("colours", "opencompass/data/gsm8k",
                                                                  "opencompass/data/ceval/formal_ceval"))  # fmt: skip
    for path in (own, gsm8k, *(ceval / split for split in ("dev", "val", "test"))):
        path.mkdir(parents=True)
    (own / "colours.py").write_text(CONFIG)
    (own / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in COLOURS))
    for split in ("train", "test"):
        (gsm8k / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    for split in ("dev", "val", "test"):
        with (ceval / split / f"law_{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(LAW)


@pytest.fixture(scope="module")
def measured(repository: Path) -> Iterator[Path]:
    """Both sides, measured once; a domain without MMLU and safety."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        for path in layout.EVALUATION_ITEMS.glob("*.jsonl"):
            path.write_text("")
        for name in ("domain", "dialogue"):
            items = [make_item(set=name, prompt=f"{name} {one}?", reference=f"Yes, {one}.") for one in range(6)]
            write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", items)
        lay_data(DOMAIN)
        lay_sets(DOMAIN, SETS)
        write_jsonl(Path("reports/receipt.parquet"), [])
        stage.evaluate("champion")
        stage.evaluate("candidate")
        yield repository


def values_of(who: str, name: str) -> dict[str, float]:
    lines = (layout.EVALUATION / who / "scores.jsonl").read_text().splitlines()
    return {row["id"]: row["value"] for row in map(json.loads, lines) if row["set"] == name}


def predictions(name: str) -> dict[str, Any]:
    found = layout.HOME.glob(f"evaluation/candidate/sets/runs/*/predictions/candidate/{name}_000.json")
    return dict(json.loads(next(found).read_text()))


def test_every_item_of_every_set_has_one_score_on_either_side(measured: Path) -> None:
    for name, items in (("colours", 8), ("sums", 5), ("law", 6)):
        before, after = values_of("champion", name), values_of("candidate", name)
        assert before.keys() == after.keys() and len(after) == items
        assert set(after.values()) <= {0.0, 1.0}
    assert set(values_of("candidate", "colours").values()) == {0.0}
