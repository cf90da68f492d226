"""Seeds and evaluation questions are read strictly; the default domain's seeds keep clear of what it is judged on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flywheel.new_domain.freeze import candidates
from tasks.core import layout
from tasks.core.domain import LEARNED_FOLDER, RewordingSource, SafetySource, Source, load_domain
from tasks.core.files import write_text
from tasks.core.params import load_params
from tasks.core.records import BadLine, Document, EvaluationItem, Example, Receipt, Rewording, read_own_jsonl
from tasks.core.tables import read_records
from tasks.corpus.ingest.small import (
    read_items,
    read_mmlu,
    read_rewordings,
    read_safety,
    read_seeds,
    refused,
    split_choices,
)
from tasks.corpus.ingest.stage import frozen_items, ingest, read_small
from tests.planted import jaccard, shingles

GIVEN: dict[str, Any] = {"name": "own", "files": ["x"], "licence": "x", "attribution": "x"}
OWN = Source.model_validate(GIVEN)


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
    [(seed, example)] = read_seeds(OWN, [path], "zh", bad)
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
    [item] = read_items(OWN, [lines(tmp_path / "e.jsonl", row, row, {"question": "谁？"})], bad)
    assert (item.set, item.prompt, item.reference, item.category) == ("domain", "谁登记？", "公安机关。", "登记")
    assert [line.line for line in bad] == [2, 3]


def test_an_evaluation_question_says_which_entries_answer_it_and_what_a_right_answer_says(tmp_path: Path) -> None:
    """The first source is its own line, those behind it the entries that it is answered from."""
    row = {
        "question": "How deep?", "answer": "2 m.", "of": ["faq/1", "faq/2"], "paraphrases": [" Depth? "],
        "facts": [["2 m", "two metres"], ["^yes"]], "never": ["3 m"],
    }  # fmt: skip
    foreign = {"question": "Weather?", "declines": "foreign", "category": "weather", "facts": None}
    bad: list[BadLine] = []
    item, other = read_items(OWN, [lines(tmp_path / "e.jsonl", row, foreign)], bad)
    assert item.source == ("own/e.jsonl:1", "faq/1", "faq/2") and item.paraphrases == ("Depth?",)
    assert (item.facts, item.never) == ((("2 m", "two metres"), ("^yes",)), ("3 m",))
    assert (other.set, other.reference, other.facts, other.category) == ("declining", "", (), "weather")
    plain = {name: row[name] for name in ("question", "answer")}
    assert read_items(OWN, [lines(tmp_path / "e.jsonl", plain)], bad)[0].id == item.id, "asked and right are the same"
    assert bad == []


@pytest.mark.parametrize(
    "fields, cause",
    [
        ({"facts": ["2 m"]}, "field 'facts' must be a list of lists of alternatives"),
        ({"facts": [[]]}, "field 'facts' must be a list of lists of alternatives"),
        ({"facts": [["2 m", ""]]}, "field 'facts' must be a text that is not empty"),
        ({"never": "3 m"}, "field 'never' must be a list of texts"),
        ({"of": [7]}, "field 'of' must be a text"),
        ({"paraphrases": [" "]}, "field 'paraphrases' must be a text that is not empty"),
        ({"answer": ""}, "field 'answer' must be a text that is not empty"),
        ({"declines": "foreign"}, "an item that has no answer has neither a reference nor choices nor facts"),
        ({"fact": []}, "unknown fields fact"),
    ],
)
def test_an_evaluation_question_that_is_not_well_formed_is_quarantined(
    tmp_path: Path, fields: dict[str, Any], cause: str
) -> None:
    row = {"question": "How deep?", "answer": "2 m."} | fields
    bad: list[BadLine] = []
    assert read_items(OWN, [lines(tmp_path / "e.jsonl", row)], bad) == []
    assert bad[0].line == 1 and cause in bad[0].cause


def test_a_question_in_other_words_names_the_entry_it_asks_for(tmp_path: Path) -> None:
    given = RewordingSource(**GIVEN, of="faq")
    rows = [{"id": "a-1", "rewordings": ["A?", "B?"]}, {"id": "a-2"}, {"id": "a-1", "rewordings": ["C?"]},
            {"rewordings": ["D?"]}, {"id": "a-3", "rewordings": "E?"}]  # fmt: skip
    bad: list[BadLine] = []
    found = read_rewordings(given, [lines(tmp_path / "r.jsonl", *rows)], bad)
    assert [(one.source, one.question) for one in found] == [("faq/a-1", "A?"), ("faq/a-1", "B?")]
    assert [(line.line, line.cause.split(";")[0]) for line in bad] == [
        (3, "the same entry stands here twice"),
        (4, "field 'id' must be a text that is not empty"),
        (5, "field 'rewordings' must be a list of texts"),
    ]


def test_the_entries_that_the_evaluation_is_answered_from_are_held_out_of_the_examples(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every entry that an item names exists and is laid aside, with its receipt; what is left has rewordings."""
    for name in ("domains", ".flywheel"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    ingest(load_domain("construction"))
    items = [
        item
        for name in ("domain", "declining")
        for item in read_own_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", EvaluationItem)
    ]
    named = {source for item in items for source in item.source[1:]}
    assert len(items) == 160 and len(named) > 90
    kept, dropped = (read_records(layout.INGEST / f"{name}.parquet", Example) for name in ("examples", "dropped"))
    laid_aside = {
        one.example_id
        for one in read_records(layout.INGEST / "receipt.parquet", Receipt)
        if not one.kept and one.reason == "kept for the evaluation"
    }
    assert not named & {example.source[0] for example in kept}
    assert named == {one.source[0] for one in dropped if one.id in laid_aside and one.origin == "human"}
    rewordings = read_own_jsonl(layout.INGEST / "rewordings.jsonl", Rewording)
    assert len({one.source for one in rewordings} & {example.source[0] for example in kept}) > 300


def test_what_is_not_needed_may_be_null(tmp_path: Path) -> None:
    row = {"question": "谁？", "answer": "公安机关。", "category": None}
    bad: list[BadLine] = []
    assert read_items(OWN, [lines(tmp_path / "e.jsonl", row)], bad)[0].category == ""
    row = {"instruction": "谁？", "input": None, "output": "公安机关。", "classification": None}
    [(seed, _)] = read_seeds(OWN, [lines(tmp_path / "s.jsonl", row)], "zh", bad)
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


@pytest.mark.parametrize(
    "text, problem",
    [
        ("Q (A) 1 (B) 2 (C) 3", "options are A, B, C"),
        ("Q (A) 1 (B) 2 (D) 3 (C) 4", "not A, B, C, D"),
        ("Q (A) 1 (B) 2 (C) 2 (D) 4", "say the same"),
        ("Q (A) 1 (B)  (C) 2 (D) 4", "empty"),
        ("no options", "missing"),
    ],
)
def test_a_corrupt_question_is_named(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        split_choices(text)


def test_an_item_whose_solution_names_two_answers_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mmlu_x.yaml"
    path.write_text(
        "fewshot_config:\n  samples:\n"
        "  - {question: 'Is (A) sum (B) or less? (A) 1 (B) 2 (C) 3 (D) 4', target: 'The answer is (B).'}\n"
        "  - {question: 'R (A) 1 (B) 2 (C) 3 (D) 4', target: 'The answer is (B). So the answer is (C).'}\n"
        "  - {question: 'S (A) 1 (B) 2 (C) 3 (D) 4', target: 'Who knows.'}\n"
    )
    bad: list[BadLine] = []
    items = read_mmlu(OWN, [path], bad)
    assert [(item.prompt, item.answer, item.category) for item in items] == [("Is (A) sum (B) or less?", 1, "x")]
    assert items[0].choices == ("1", "2", "3", "4")
    assert ["names the answers B and C" in bad[0].cause, "names no answer" in bad[1].cause] == [True, True]


def test_the_audit_of_the_real_items_leaves_out_the_three_known_to_be_corrupt(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    bad: list[BadLine] = []
    items = read_mmlu(domain.mmlu, domain.paths(domain.mmlu), bad)
    assert len(items) == 279
    corrupt = ("college_chemistry", "college_physics", "high_school_biology")
    assert sorted(Path(line.file).stem for line in bad) == [f"mmlu_{name}" for name in corrupt]


def test_a_safety_item_prefers_the_refusal(tmp_path: Path) -> None:
    path = tmp_path / "requests.txt"
    path.write_text("Do harm\n\nDo harm\nDo more\n")
    refusals = ["Never.", "I will not."]
    given = SafetySource(**GIVEN, refusal="No.", compliance="Sure.", replay_refusals=refusals)
    items = read_safety(given, [path])
    assert [(item.prompt, item.choices, item.answer) for item in items] == [
        ("Do harm", ("No.", "Sure."), 0),
        ("Do more", ("No.", "Sure."), 0),
    ]
    trained = refused(given, items, "en")
    assert [example.instruction for example in trained] == ["Do harm", "Do more"]
    assert {example.output for example in trained} <= {"Never.", "I will not."}


def test_learned_documents_are_read_as_what_may_be_known_and_not_trained_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `flywheel learn` keeps them, every release finds them."""
    shutil.copytree(root / "domains", tmp_path / "domains")
    (tmp_path / ".flywheel").symlink_to(root / ".flywheel")
    monkeypatch.chdir(tmp_path)
    domain = load_domain("construction")
    write_text(domain.folder / LEARNED_FOLDER / "sauna.md", "A sauna may be lit from 7 to 22.")
    ingest(domain)
    assert read_records(layout.INGEST / "documents.parquet", Document) == []
    (found,) = read_records(layout.INGEST / "known_documents.parquet", Document)
    assert (found.name, found.text) == ("learned/sauna.md", "A sauna may be lit from 7 to 22.")
