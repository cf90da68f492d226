"""Tokens are encoded once, and never read from an entry that is not what was asked for or not what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.records import make_example, write_jsonl
from tasks.train.sft.tokens import cached_rows, entry_of

EXPECTED = [{"input_ids": [97, 98, 62, 99, 0], "labels": [-100, -100, -100, 99, 0]}]


class CountingTokenizer:
    """One token a character; counts the texts it is given."""

    chat_template = "{{ messages[-1]['content'] }}>"
    special_tokens_map: dict[str, str] = {}  # noqa: RUF012 - never changed
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    all_special_tokens: tuple[str, ...] = ()
    eos_token_id = 0

    def __init__(self) -> None:
        self.texts = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        self.texts += 1
        return {"input_ids": [ord(letter) for letter in text]}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One example and a tokenizer's file, in an empty repository."""
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/tokenizer.json").write_text("{}")
    example = make_example(instruction="ab", output="c", language="en", origin="human", source=("t",))
    write_jsonl(Path("train.jsonl"), [example])
    return Path("train.jsonl")


def rows(tokenizer: CountingTokenizer, data: Path, system: str = "", max_tokens: int = 10) -> Any:
    return cached_rows(tokenizer, Path("model"), data, system, max_tokens)


def test_examples_are_encoded_once(data: Path) -> None:
    """A prompt and an answer the first time, nothing the second."""
    tokenizer = CountingTokenizer()
    assert [rows(tokenizer, data), rows(tokenizer, data)] == [EXPECTED, EXPECTED]
    assert tokenizer.texts == 2


def test_what_shapes_the_tokens_names_the_entry(data: Path) -> None:
    def name(system: str = "", max_tokens: int = 10) -> Path:
        return entry_of(Path("model"), data, system, max_tokens)

    first = name()
    names = {first, name(system="Be brief."), name(max_tokens=11)}
    Path("model/tokenizer.json").write_text("{ }")
    names.add(name())
    Path("model/tokenizer.json").write_text("{}")
    assert name() == first
    data.write_text(data.read_text().replace('"ab"', '"ac"'))
    names.add(name())
    assert len(names) == 5


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: b"", lambda content: content + b"]"])
def test_a_damaged_entry_is_made_anew(data: Path, damage: Any) -> None:
    tokenizer = CountingTokenizer()
    rows(tokenizer, data)
    [entry] = Path(".flywheel/cache/tokens").iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert rows(tokenizer, data) == EXPECTED
    assert entry.read_bytes() == whole


def test_a_write_that_fails_leaves_no_entry(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        rows(CountingTokenizer(), data)
    assert list(Path(".flywheel/cache/tokens").iterdir()) == []
