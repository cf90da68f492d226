"""A cached response is found again only when everything that shaped it is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core.records import make_item
from tasks.evaluate.run.score_cache import Conditions, find, keep, key_of
from tasks.evaluate.scoring.questions import Question, Response

ITEM = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=0)
QUESTION = Question(ITEM, "choices", "user: Which?", ("a", "b"), (1, 1))
MODEL = {"base": "1" * 64, "adapter": None}
CONDITIONS = Conditions(
    backend="opencompass/huggingface",
    precision="fp32",
    device="cpu",
    batch_size=16,
    max_new_tokens=64,
    repetition_penalty=1.1,
    threads=2,
    lock="2" * 64,
    source="3" * 64,
)
RESPONSE = Response(values=(1.5, 2.25))


def key(question: Question = QUESTION, conditions: Conditions = CONDITIONS, **model: str) -> str:
    return key_of(question, {**MODEL, **model}, conditions)


@pytest.mark.parametrize("field", Conditions.__dataclass_fields__)
def test_every_condition_is_part_of_the_key(field: str) -> None:
    value = getattr(CONDITIONS, field)
    changes: dict[str, Any] = {field: value + "x" if isinstance(value, str) else value + 1}
    assert key(conditions=replace(CONDITIONS, **changes)) != key()
    assert len({key(), key(adapter="4" * 64), key(base="5" * 64)}) == 3


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUESTION, prompt="user: Which one?"),
        replace(QUESTION, answers=("a", "c")),
        replace(QUESTION, answers=("b", "a")),
        replace(QUESTION, kind="nll"),
    ],
)
def test_every_part_of_what_is_asked_is_part_of_the_key(changed: Question) -> None:
    assert key(changed) != key()


def test_what_decides_nothing_is_not_part_of_the_key() -> None:
    """The same question under another item id (say, a new category list) keeps its response."""
    other = make_item(set="mmlu", prompt="Which?", choices=("a", "b"), answer=1)
    assert key(replace(QUESTION, item=other)) == key()


def test_a_response_is_found_as_it_was_kept(tmp_path: Path) -> None:
    assert find(key(), QUESTION, tmp_path) is None
    keep(key(), RESPONSE, tmp_path)
    assert find(key(), QUESTION, tmp_path) == RESPONSE


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"text": "x"}', '{"values": [1.0]}']
    + [f'{{"values": [1.0, {value}], "text": null}}' for value in ("NaN", "Infinity", '"-"', "null")],
)
def test_a_damaged_entry_counts_as_missing(tmp_path: Path, text: str) -> None:
    keep(key(), RESPONSE, tmp_path)
    (entry,) = tmp_path.rglob("*.json")
    entry.write_text(text)
    assert find(key(), QUESTION, tmp_path) is None
