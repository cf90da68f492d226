"""A domain's own preferences are read as people write them, and a bad line stops nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.core.records import BadLine, Message, make_preference
from tasks.corpus.reading.preferences import read_shipped


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
        "prompt.0.role",
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
