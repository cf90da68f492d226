"""Preferences are read from every form that people keep them in; what is none is laid aside in plain words."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.domain import PreferenceColumns, PreferenceSource, named_files
from tasks.core.records import BadLine, Message, make_preference
from tasks.corpus.reading.rows import SourceError
from tasks.curate.pairs.rows import read_shipped, shipped_preferences


def test_the_four_fields_are_enough_and_a_bad_line_is_laid_aside_with_its_cause(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "How high?"}]
    good = {"prompt": prompt, "chosen": "Two metres.", "rejected": "No idea.", "source": ["board"]}
    rows = [
        good,
        {**good, "prompt": "How wide?", "source": "board"},
        {**good, "id": 7, "source": None},
        {**good, "chosen": 7},
        {**good, "prompt": [{"role": "tool", "content": "x"}]},
        {**good, "score": 1, "margin": None},
        {key: good[key] for key in ("prompt", "chosen")},
    ]
    (tmp_path / "preferences.jsonl").write_text("\n".join([*map(json.dumps, rows), "{"]))
    bad, unused = list[BadLine](), Counter[str]()
    first, second, third, fourth = read_shipped(tmp_path / "preferences.jsonl", bad, unused)
    question = Message(role="user", content="How high?")
    assert first == make_preference((question,), "Two metres.", "No idea.", ("board",))
    assert (second.prompt[0].content, second.source) == ("How wide?", ("board",))
    assert (third.id, third.source) == (first.id, ("preferences.jsonl:3",))
    assert (fourth, unused) == (first, {"score": 1})
    assert [line.cause.split(":")[0] for line in bad] == [
        "chosen",
        "prompt",
        "rejected",
        "Expecting property name enclosed in double quotes",
    ]
    assert [line.line for line in bad] == [4, 5, 7, 8]


SYSTEM, ASKED = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "How high?"}
HIGH, LOW = {"role": "assistant", "content": "Two metres."}, {"role": "assistant", "content": "No idea."}


def shipped(path: Path, row: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """The messages and answers of a file of one row, or why it is none."""
    path.write_text(json.dumps(row))
    bad: list[BadLine] = []
    read = read_shipped(path, bad, Counter())
    parts = [([message.model_dump() for message in one.prompt], one.chosen, one.rejected) for one in read]
    return parts, [line.cause for line in bad]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": [ASKED], "chosen": [HIGH], "rejected": [LOW]}, [ASKED]),
        ({"chosen": [ASKED, HIGH], "rejected": [ASKED, LOW]}, [ASKED]),
        ({"prompt": "How high?", "chosen": [SYSTEM, ASKED, HIGH], "rejected": [SYSTEM, ASKED, LOW]}, [SYSTEM, ASKED]),
    ],
)
def test_of_conversations_the_last_messages_are_the_answers(
    tmp_path: Path, row: dict[str, Any], prompt: list[Any]
) -> None:
    """As TRL has them: with a prompt, without one, and with one that they repeat."""
    assert shipped(tmp_path / "preferences.jsonl", row) == ([(prompt, "Two metres.", "No idea.")], [])


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"chosen": [ASKED, HIGH], "rejected": [SYSTEM, ASKED, LOW]}, "has to be equal, and the prompt"),
        ({"prompt": "How wide?", "chosen": [ASKED, HIGH], "rejected": [ASKED, LOW]}, "has to be equal, and the prompt"),
        ({"prompt": 5, "chosen": [ASKED, HIGH], "rejected": [ASKED, LOW]}, "has to be equal, and the prompt"),
        ({"chosen": [HIGH, ASKED], "rejected": [LOW, ASKED]}, "has to end with a message of the assistant"),
        ({"prompt": "How high?", "chosen": [HIGH], "rejected": "No idea."}, "chosen: needed is a text, or a list of"),
        ({"chosen": "Two metres.", "rejected": "No idea."}, "prompt: needed is a text, or a list of messages"),
    ],
)
def test_conversations_that_do_not_fit_are_laid_aside_in_plain_words(
    tmp_path: Path, row: dict[str, Any], cause: str
) -> None:
    read, (told,) = shipped(tmp_path / "preferences.jsonl", row)
    assert read == [] and cause in told


WANTED = make_preference((Message(role="user", content="How high?"),), "Two metres.", "No idea.", ("x",))
FLAT = {"prompt": "How high?", "chosen": "Two metres.", "rejected": "No idea."}


def jsonl(folder: Path, row: dict[str, Any]) -> None:
    (folder / "pairs.jsonl").write_text(json.dumps(row))


def table(folder: Path, row: dict[str, Any]) -> None:
    with (folder / "pairs.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([row.keys(), row.values()])


def sheet(folder: Path, row: dict[str, Any]) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for cells in (list(row), [*row.values()]):
        book.active.append(cells)
    book.save(folder / "pairs.xlsx")


def parquet(folder: Path, row: dict[str, Any]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    write_table(pa.Table.from_pylist([row]), folder / "pairs.parquet")


def saved(folder: Path, row: dict[str, Any]) -> None:
    from datasets import Dataset

    Dataset.from_list([row]).save_to_disk(folder / "pairs")


TURNS = [{"from": "human", "value": "How high?"}]
SHAREGPT = {
    "conversations": TURNS, "chosen": {"from": "gpt", "value": "Two metres."},
    "rejected": {"from": "gpt", "value": "No idea."},
}  # fmt: skip
TRL = {"chosen": [ASKED, HIGH], "rejected": [ASKED, LOW]}
ALPACA = {"instruction": "How", "input": "high?", "chosen": "Two metres.", "rejected": "No idea."}


@pytest.mark.parametrize("row", [FLAT, SHAREGPT, TRL, {**TRL, "prompt": [ASKED]}])
@pytest.mark.parametrize("write", [jsonl, parquet, saved])
def test_columns_messages_and_sharegpt_turns_give_the_same_preference_in_files_that_nest(
    tmp_path: Path, write: Callable[[Path, dict[str, Any]], None], row: dict[str, Any]
) -> None:
    write(tmp_path, row)
    bad, unused = list[BadLine](), Counter[str]()
    [read] = [one for path in named_files(tmp_path, "pairs*") for one in read_shipped(path, bad, unused)]
    assert (read.id, bad, unused) == (WANTED.id, [], {})


@pytest.mark.parametrize("write", [table, sheet])
def test_tables_are_read_by_the_names_of_their_columns_or_as_domain_yaml_says(
    tmp_path: Path, write: Callable[[Path, dict[str, Any]], None]
) -> None:
    columns = PreferenceColumns(prompt="Asked", chosen="Better", rejected="Worse", system="Under")
    for row, given in ((FLAT, None), ({"Asked": "How high?", "Better": "Two metres.", "Worse": "No idea.",
                                       "Under": "Be kind.", "By": "board"}, columns)):  # fmt: skip
        write(tmp_path, row)
        bad, unused = list[BadLine](), Counter[str]()
        [path] = named_files(tmp_path, "pairs*")
        [read] = read_shipped(path, bad, unused, given, "board/")
        assert [message.content for message in read.prompt] == ["Be kind."] * bool(given) + ["How high?"]
        assert (read.chosen, read.rejected, read.source) == ("Two metres.", "No idea.", (f"board/{path.name}:2",))
        assert (bad, unused) == ([], {"By": 1} if given else {})


def test_an_instruction_with_its_input_is_asked_as_an_example_would_be(tmp_path: Path) -> None:
    assert shipped(tmp_path / "a.jsonl", ALPACA)[0][0][0] == [{"role": "user", "content": "How\n\nhigh?"}]


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({**FLAT, "chosen": [{**HIGH, "tool_calls": [{"id": "c"}]}]}, "chosen: a turn holds tool_calls"),
        (
            {**FLAT, "prompt": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "prompt: a turn has a part of type",
        ),
        ({**FLAT, "rejected": None}, "rejected: needed is a text"),
        ({**FLAT, "chosen": "A\u0007"}, "the control character U+0007"),
    ],
)
def test_a_preference_that_is_no_text_is_laid_aside_by_name(tmp_path: Path, row: dict[str, Any], cause: str) -> None:
    read, (told,) = shipped(tmp_path / "preferences.jsonl", row)
    assert read == [] and cause in told


def test_what_domain_yaml_names_is_read_beside_the_domain_s_own_file_and_refused_where_no_row_fits(
    tmp_path: Path,
) -> None:
    source = PreferenceSource(name="board", files=["x"], licence="x", attribution="x")
    (tmp_path / "preferences.jsonl").write_text(json.dumps({**FLAT, "prompt": "How wide?"}))
    table(tmp_path, FLAT)
    domain: Any = SimpleNamespace(folder=tmp_path, preferences=[source], paths=lambda _: [tmp_path / "pairs.csv"])
    read = shipped_preferences(domain, [], Counter())
    assert [one.source for one in read] == [("preferences.jsonl:1",), ("board/pairs.csv:2",)]
    table(tmp_path, {"question": "How high?", "answer": "Two metres."})
    with pytest.raises(SourceError, match=r"pairs\.csv: not one row is a preference\n  1 row not used: chosen: needed"):
        shipped_preferences(domain, [], Counter())
