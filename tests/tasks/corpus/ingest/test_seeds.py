"""Seeds and evaluation questions are read strictly; the default domain's seeds keep clear of what it is judged on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flywheel.new_domain.freeze import candidates
from tasks.core.domain import EvaluationSource, SeedSource, load_domain
from tasks.core.params import load_params
from tasks.core.records import BadLine
from tasks.corpus.ingest.seeds import read_items, read_seeds
from tasks.corpus.ingest.stage import frozen_items, read_small
from tests.planted import jaccard, shingles

GIVEN = {"name": "own", "files": ["x"], "licence": "x", "attribution": "x"}
SEEDS, ITEMS = SeedSource.model_validate(GIVEN), EvaluationSource.model_validate(GIVEN)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return path


def test_a_seed_and_its_example_have_one_id_and_bad_seeds_a_reason(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "seeds.jsonl",
        {"instruction": "分类", "input": "行人", "output": "其他", "classification": True},
        {"instruction": "分类", "input": "行人", "output": "其他"},
        {"instruction": "", "output": "x"},
        {"instruction": "a", "output": "b", "label": "c"},
        {"instruction": "a", "output": "b", "classification": "yes"},
        {"instruction": "a", "output": "<p>b</p>"},
    )
    bad: list[BadLine] = []
    [(seed, example)] = read_seeds(SEEDS, [path], "zh", bad)
    assert seed.id == example.id and seed.classification
    assert (example.prompt, example.source, example.origin) == ("分类\n\n行人", ("own/seeds.jsonl:1",), "human")
    assert [line.cause.split(";")[0] for line in bad] == [
        "the same seed stands here twice",
        "field 'instruction' must be a text that is not empty",
        "unknown fields label",
        "field 'classification' must be true or false",
        "HTML in the answer: <p>",
    ]


def test_evaluation_questions_are_items_with_their_category(tmp_path: Path) -> None:
    row = {"question": "谁登记？", "answer": "公安机关。", "category": "登记"}
    bad: list[BadLine] = []
    [item] = read_items(ITEMS, [lines(tmp_path / "e.jsonl", row, row, {"question": "谁？"})], bad)
    assert (item.set, item.prompt, item.reference, item.category) == ("domain", "谁登记？", "公安机关。", "登记")
    assert [line.line for line in bad] == [2, 3]


def test_what_is_not_needed_may_be_null(tmp_path: Path) -> None:
    row = {"question": "谁？", "answer": "公安机关。", "category": None}
    bad: list[BadLine] = []
    assert read_items(ITEMS, [lines(tmp_path / "e.jsonl", row)], bad)[0].category == ""
    row = {"instruction": "谁？", "input": None, "output": "公安机关。", "classification": None}
    [(seed, _)] = read_seeds(SEEDS, [lines(tmp_path / "s.jsonl", row)], "zh", bad)
    assert (seed.input, seed.classification, bad) == ("", False, [])


def test_the_default_domain_has_over_a_hundred_seeds_far_from_its_frozen_questions(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    domain, params = load_domain("construction"), load_params()
    seeds = read_small(domain).seeds
    assert len(seeds) >= 100 and sum(seed.classification for seed, _ in seeds) >= 15
    frozen = [shingles(item.prompt, 5) for item in frozen_items(domain, candidates(domain))["domain"]]
    nearest = max(jaccard(shingles(example.prompt, 5), item) for _, example in seeds for item in frozen)
    assert nearest < params.mix.leak_threshold
