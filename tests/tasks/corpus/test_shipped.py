"""A domain's own preferences are read as people write them, and a bad line stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tasks.corpus.shipped import read_shipped
from tasks.records import BadLine, Message, make_preference


def test_the_four_fields_are_enough_and_a_bad_line_is_laid_aside_with_its_cause(tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "How high?"}]
    good = {"prompt": prompt, "chosen": "Two metres.", "rejected": "No idea.", "source": ["board"]}
    rows = [
        good,
        {**good, "prompt": "How wide?", "source": "board"},
        {**good, "id": 7, "source": None},
        {**good, "chosen": 7},
        {**good, "prompt": [{"role": "tool", "content": "x"}]},
        {**good, "score": 1},
        {key: good[key] for key in ("prompt", "chosen")},
    ]
    (tmp_path / "preferences.jsonl").write_text("\n".join([*map(json.dumps, rows), "{"]))
    bad: list[BadLine] = []
    first, second, third = read_shipped(tmp_path / "preferences.jsonl", bad)
    question = Message(role="user", content="How high?")
    assert first == make_preference((question,), "Two metres.", "No idea.", ("board",))
    assert (second.prompt[0].content, second.source) == ("How wide?", ("board",))
    assert (third.id, third.source) == (first.id, ("preferences.jsonl:3",))
    assert [line.cause.split(":")[0] for line in bad] == [
        "chosen",
        "prompt.0.role",
        "unknown fields score",
        "rejected",
        "Expecting property name enclosed in double quotes",
    ]
    assert [line.line for line in bad] == [4, 5, 6, 7, 8]
