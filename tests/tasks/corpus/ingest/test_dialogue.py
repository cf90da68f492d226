"""General dialogue in every form: what is replayed, what the evaluation keeps, and what neither can use."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core.domain import COLUMNAR, DialogueSource, load_domain, named_files
from tasks.core.records import Turn, make_example
from tasks.corpus.ingest.dialogue import Dialogue, is_held_out, normalise, read_dialogue
from tasks.corpus.ingest.stage import items_of
from tasks.corpus.reading.rows import SourceError

GIVEN: dict[str, Any] = {"name": "own", "files": ["x"], "licence": "x", "attribution": "x", "language": "en"}
TOPICS = DialogueSource(**GIVEN, evaluation_topics=["food"])
SHARED = DialogueSource(**GIVEN)
COLUMNS = {"question": "Said", "answer": "Reply", "category": "Topic"}
SAID = [(f"Hello, what about number {n}?", f"Number {n} is well.") for n in range(20)]


def topic(folder: Path, name: str, *conversations: list[str]) -> Path:
    path = folder / f"{name}.yml"
    path.write_text(yaml.safe_dump({"conversations": list(conversations)}))
    return path


def dialogue_of(paths: list[Path], source: DialogueSource = TOPICS) -> Dialogue:
    dialogue = Dialogue()
    read_dialogue(source, paths, dialogue)
    return dialogue


def test_a_prompt_of_an_evaluation_topic_is_never_replayed(tmp_path: Path) -> None:
    paths = [
        topic(tmp_path, "ai", ["What do you EAT?", "Bytes"], ["Who are you?", "A model"], ["Who are you?", "Nobody"]),
        topic(tmp_path, "food", ["what do you  eat?", "Bread"]),
    ]
    dialogue = dialogue_of(paths)
    assert [example.output for example in dialogue.held_out] == ["Bread"]
    assert [example.output for example in dialogue.replay] == ["A model"]
    assert [example.output for example in dialogue.dropped] == ["Bytes", "Nobody"]
    reasons = {receipt.reason for receipt in dialogue.receipts if not receipt.kept}
    assert reasons == {"kept for the evaluation", "prompt occurs before"}


def test_what_is_not_a_conversation_is_quarantined_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "bad.yml").write_text("conversations: [")
    paths = [topic(tmp_path, "ai", ["alone"], ["Hi", "Hello"], ["Hi", "Hello"]), tmp_path / "bad.yml"]
    dialogue = dialogue_of(paths)
    assert [(receipt.kept, receipt.reason) for receipt in dialogue.receipts] == [(True, "read")], "once for the same"
    assert [example.output for example in dialogue.replay] == ["Hello"]
    assert sorted(line.cause.split(":")[0] for line in dialogue.bad) == [
        "conversation 1 has no prompt with an answer",
        "not a conversation file",
    ]


def test_the_real_corpus_is_split_without_a_shared_prompt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    domain = load_domain("construction")
    dialogue = Dialogue()
    read_dialogue(domain.general[0], domain.paths(domain.general[0]), dialogue)
    replayed = {normalise(example.prompt) for example in dialogue.replay}
    held_out = {normalise(example.prompt) for example in dialogue.held_out}
    assert len(dialogue.replay) > 400 and len(dialogue.held_out) > 150
    assert not replayed & held_out
    assert not {e.category for e in dialogue.replay} & {e.category for e in dialogue.held_out}


def turns(*texts: str, role: str = "role", text: str = "content") -> list[dict[str, Any]]:
    return [{role: "assistant" if place % 2 else "user", text: said} for place, said in enumerate(texts)]


def alpaca(folder: Path) -> None:
    (folder / "chat.json").write_text(json.dumps([{"instruction": one, "output": two} for one, two in SAID]))


def sharegpt(folder: Path) -> None:
    rows = [{"conversations": turns(*said, role="from", text="value")} for said in SAID]
    (folder / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)))


def messages(folder: Path) -> None:
    (folder / "chat.jsonl").write_text("\n".join(json.dumps({"messages": turns(*said)}) for said in SAID))


def table(folder: Path) -> None:
    with (folder / "chat.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("Said", "Reply"), *SAID])


def sheet(folder: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for row in [("Said", "Reply"), *SAID]:
        book.active.append(row)
    book.save(folder / "chat.xlsx")


def parquet(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    for place, part in enumerate((SAID[:7], SAID[7:])):
        rows = [{"messages": turns(*said)} for said in part]
        (folder / "data").mkdir(exist_ok=True)
        write_table(pa.Table.from_pylist(rows), folder / f"data/train-0000{place}-of-00002.parquet")


def saved(folder: Path) -> None:
    """As `save_to_disk` writes it, with the splits in folders of their own and the notes beside the rows."""
    from datasets import Dataset, DatasetDict

    rows = [{"Said": one, "Reply": two, "image": None} for one, two in SAID]
    splits = {"train": Dataset.from_list(rows[:15]), "test": Dataset.from_list(rows[15:])}
    DatasetDict(splits).save_to_disk(folder / "data")


@pytest.mark.parametrize(
    "write, columns, pattern",
    [
        (alpaca, None, "chat.json"),
        (sharegpt, None, "chat.jsonl"),
        (messages, None, "chat.jsonl"),
        (table, COLUMNS, "chat.csv"),
        (sheet, COLUMNS, "chat.xlsx"),
        (parquet, None, "data"),
        (parquet, None, "data/*.parquet"),
        (saved, COLUMNS, "data"),
    ],
)
def test_dialogue_is_read_in_every_form_of_human_examples_and_shared_out_alike(
    tmp_path: Path, write: Callable[[Path], None], columns: dict[str, str] | None, pattern: str
) -> None:
    """By how a conversation begins, so that neither the form nor the order of files decides what is evaluated on."""
    write(tmp_path)
    named = {key: name for key, name in (columns or {}).items() if key != "category"} or None
    dialogue = dialogue_of(named_files(tmp_path, pattern), DialogueSource(**GIVEN, columns=named))
    replayed, held_out = ({example.prompt for example in pool} for pool in (dialogue.replay, dialogue.held_out))
    assert replayed | held_out == {one for one, _ in SAID} and not replayed & held_out
    assert held_out == {one for one, _ in SAID if held(one)} and 1 <= len(held_out) <= 8
    assert {(e.origin, e.language) for e in dialogue.replay} == {("general", "en")}
    assert dialogue.bad == [] and len(dialogue.receipts) == 20


def held(prompt: str) -> bool:
    return is_held_out(
        SHARED, make_example(instruction=prompt, output="x", language="en", origin="general", source=("x",))
    )


def test_a_column_of_topics_says_what_is_evaluated_on_and_a_bad_row_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    path.write_text("Said,Reply,Topic,Note\nHi,Hello,ai,x\nWhat to eat?,Bread,food,\nAnd?,,ai,\nBold?,<b>Yes</b>,ai,\n")
    source = DialogueSource(**GIVEN, columns=COLUMNS, evaluation_topics=["food"])
    dialogue = dialogue_of([path], source)
    assert [example.output for example in dialogue.held_out] == ["Bread"]
    assert [example.output for example in dialogue.replay] == ["Hello"]
    assert [example.output for example in dialogue.dropped] == ["<b>Yes</b>"]
    assert [(line.file, line.line, line.cause) for line in dialogue.bad] == [
        (path.as_posix(), 4, "field 'Reply' must be a text that is not empty"),
        (path.as_posix(), 5, "HTML in the answer: <b>"),
    ]
    assert dialogue.unused == {"chat.csv: Note": 1}
    assert {receipt.reason for receipt in dialogue.receipts} == {
        "read",
        "kept for the evaluation",
        "HTML in the answer",
    }


def test_all_turns_of_a_conversation_are_on_one_side_and_the_evaluation_asks_its_first(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.write_text("\n".join(json.dumps({"messages": turns(*said, f"And then, {said[1]}", "Yes.")}) for said in SAID))
    dialogue = dialogue_of([path], SHARED)
    assert len(dialogue.replay) + len(dialogue.held_out) == 40
    sides = [{e.source for e in pool} for pool in (dialogue.replay, dialogue.held_out)]
    assert not sides[0] & sides[1], "a source is a conversation"
    items = items_of("dialogue", dialogue.held_out)
    assert len(items) == len(sides[1]) and {item.history for item in items} == {()}


def test_what_follows_a_prompt_that_is_evaluated_on_is_not_replayed_either(tmp_path: Path) -> None:
    chats = [turns("What to eat?", "Fish", "And to drink?", "Tea"), turns("Who are you?", "A model", "Yes?", "Yes.")]
    (tmp_path / "ai.jsonl").write_text("\n".join(json.dumps({"messages": chat}) for chat in chats))
    dialogue = dialogue_of([tmp_path / "ai.jsonl", topic(tmp_path, "food", ["what  to eat?", "Bread"])])
    assert [example.output for example in dialogue.held_out] == ["Bread"]
    assert [example.output for example in dialogue.dropped] == ["Fish", "Tea"]
    assert [(e.output, e.history) for e in dialogue.replay] == [
        ("A model", ()), ("Yes.", (Turn(user="Who are you?", assistant="A model"),))
    ]  # fmt: skip


@pytest.mark.parametrize("ending", COLUMNAR)
def test_a_file_of_rows_that_is_damaged_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"chat{ending}"
    path.write_bytes(b"no rows at all, whatever its name says" * 10)
    with pytest.raises(SourceError, match=f"chat{ending}: not readable as {ending[1:]}"):
        dialogue_of([path], SHARED)
