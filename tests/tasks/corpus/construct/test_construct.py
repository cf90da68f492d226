"""The stage `construct`, with a teacher that answers over HTTP: what it writes, and that a rerun writes the same."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.files import write_json
from tasks.core.records import Dropped, Example, Receipt, Triple, read_own_jsonl
from tasks.core.tables import read_records
from tasks.corpus.construct.self_instruct import FIELDS
from tasks.corpus.construct.stage import construct
from tasks.corpus.reading.forgotten import FORGOTTEN
from tests.construct_root import document, make_root, seed
from tests.said_teacher import said_items
from tests.teacher_server import Messages, TeacherServer

TEXT = (
    "An extension of up to 15 square metres needs no building permit when it is on one storey. "
    "The municipality decides within 10 weeks, counted from the day on which the application is complete."
)
SEEDS = [
    seed("Explain what a building permit is.", "A permission by the municipality."),
    seed("Is this about money or about time?", "time", "The work takes two weeks.", classification=True),
    seed("List three tools of a carpenter.", "Saw, hammer, plane."),
    seed("Write a short reminder about an invoice.", "Please pay the invoice of May."),
]


def answer(messages: Messages) -> str:
    """Two questions about a passage, a right answer to the first, an invented one to the second; one task, answered."""
    asked = messages[-1]["content"]
    if "different questions" in asked:
        large = "An extension of up to 15 square metres needs no building permit."
        return said_items(
            ("How large may an extension be without a building permit?", large),
            ("How many weeks does a permit take?", "It takes 12 weeks."),
        )
    task = ("Compare a wooden house with one of stone.", "", "None", "Wood is warmer, stone lasts longer.")
    return said_items(task, ("List three tools of a carpenter!", "", "", "Saw."), fields=FIELDS)


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / layout.CONSTRUCT).iterdir())}


def test_the_stage_keeps_what_is_grounded_and_says_what_became_of_the_rest(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TeacherServer(answer) as server:
        on = {"self_instruct": {"examples": 1}, "self_qa": {"chunks": 5}}
        make_root(tmp_path, root, base_model, server.url, [document("a.txt", TEXT)], SEEDS, **on)
        monkeypatch.chdir(tmp_path)
        said = construct()
        first, requests = read(tmp_path), server.requests
    # The teacher is gone: a rerun needs none of it, and gives the same bytes.
    assert construct() == said
    assert read(tmp_path) == first
    examples = read_records(layout.CONSTRUCT / "examples.parquet", Example)
    assert [example.origin for example in examples] == ["human", "feedback", "self_instruct", "self_qa"]
    assert [example.instruction for example in examples[2:]] == [
        "Compare a wooden house with one of stone.",
        "How large may an extension be without a building permit?",
    ]
    assert examples[3].source == (f"book/a.txt#0-{len(TEXT)}",)
    assert examples[3].evidence == TEXT
    assert set(examples[2].source) <= {seed.id for seed in SEEDS}
    dropped = read_own_jsonl(layout.CONSTRUCT / "quarantine.jsonl", Dropped)
    (wrong,) = [one for one in dropped if one.origin == "self_qa"]
    assert (wrong.reason, wrong.score) == ("not grounded", 0.0)
    assert "12" in wrong.detail
    receipts = read_records(layout.CONSTRUCT / "receipt.parquet", Receipt)
    assert len(receipts) == len(examples) + len(dropped)
    assert {receipt.example_id for receipt in receipts if not receipt.kept} == {one.id for one in dropped}
    summary = json.loads((layout.CONSTRUCT / "summary.json").read_text())
    assert summary["self_qa"] == {
        "candidates": 2, "kept": 1, "yield": 0.5, "dropped": {"not grounded": 1}, "skipped": {},
        "mean_groundedness": 0.5, "requests": 1, "answered": 1, "prompt_tokens": 10, "completion_tokens": 5,
    }  # fmt: skip
    assert summary["self_instruct"]["requests"] + 1 == requests == 2
    assert "self_qa: 1 of 2 candidates kept (1 not grounded)" in said


def test_an_endpoint_without_response_format_gives_the_same_examples_and_is_asked_once_with_it(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    for refused in (frozenset[str](), frozenset({"response_format"})):
        home = tmp_path / str(len(refused))
        home.mkdir()
        with TeacherServer(answer, refuses=refused) as server:
            on = {"chunks": 5}
            texts = [document(f"{n}.txt", f"{TEXT} Case {n}.") for n in range(3)]
            make_root(home, root, base_model, server.url, texts, [], {"concurrency": 1}, self_qa=on)
            monkeypatch.chdir(home)
            said.append((construct(), read(home)))
            assert server.requests == 3 + len(refused)
    assert said[0] == said[1]


def test_with_every_method_off_no_teacher_is_needed(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_root(tmp_path, root, base_model, "http://127.0.0.1:1/v1", [], [])
    monkeypatch.chdir(tmp_path)
    assert construct() == "1 written by people; 1 corrected by users"
    assert json.loads((layout.CONSTRUCT / "summary.json").read_text()) == {}


@pytest.mark.parametrize("paraphrase", [False, True])
def test_triples_become_examples_and_the_teacher_is_asked_only_to_reword(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paraphrase: bool
) -> None:
    things = {"roof": "tiles", "wall": "bricks", "floor": "oak"}
    triples = [
        Triple(subject=thing, relation="made of", object=made, file="graph/g.csv", line=line)
        for line, (thing, made) in enumerate(things.items(), start=2)
    ]
    with TeacherServer(lambda messages: "Which material is the roof of?") as server:
        on = {"examples": 5, "paraphrase": paraphrase}
        make_root(tmp_path, root, base_model, server.url, [], [], triples=triples, self_kv=on)
        monkeypatch.chdir(tmp_path)
        said = construct()
        assert server.requests == (3 if paraphrase else 0)
    built = [e for e in read_records(layout.CONSTRUCT / "examples.parquet", Example) if e.origin == "self_kv"]
    assert sorted(example.output for example in built) == [
        "The floor is made of oak.", "The roof is made of tiles.", "The wall is made of bricks."
    ]  # fmt: skip
    asked = {example.output: example.instruction for example in built}
    # The wording that names the roof is usable for the roof alone.
    assert ("Which material is the roof of?" in asked.values()) is paraphrase
    assert asked["The wall is made of bricks."] == "What is the wall made of?"
    summary = json.loads((layout.CONSTRUCT / "summary.json").read_text())["self_kv"]
    assert (summary["kept"], summary["requests"], summary["mean_groundedness"]) == (3, 3 if paraphrase else 0, 1.0)
    assert "self_kv: 3 of 3 candidates kept" in said


def test_an_example_that_was_forgotten_is_not_made_again(
    root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TeacherServer(answer) as server:
        on = {"self_qa": {"chunks": 5}}
        make_root(tmp_path, root, base_model, server.url, [document("a.txt", TEXT)], [], **on)
        monkeypatch.chdir(tmp_path)
        construct()
    examples = read_records(layout.CONSTRUCT / "examples.parquet", Example)
    [wrong] = read_own_jsonl(layout.CONSTRUCT / "quarantine.jsonl", Dropped)
    gone = {examples[-1].id, wrong.id}
    write_json(tmp_path / FORGOTTEN, sorted(sha256(one.encode()).hexdigest() for one in gone))
    construct()
    assert read_records(layout.CONSTRUCT / "examples.parquet", Example) == examples[:-1]
    assert read_own_jsonl(layout.CONSTRUCT / "quarantine.jsonl", Dropped) == []
    receipts = read_records(layout.CONSTRUCT / "receipt.parquet", Receipt)
    assert {one.example_id for one in receipts if (one.kept, one.reason) == (False, "forgotten")} == gone
    assert len(receipts) == len(examples) - 1 + len(gone)
