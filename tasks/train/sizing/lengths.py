"""How many tokens the examples of a training have, counted without loading torch.

Sizing answers at once and runs inside the stage, so it reads the tokenizer's files without transformers. A test
compares every length with what training itself encodes. What cannot be rendered counts for nothing here: training lays
it aside, or stops, and names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.text.prompts import PromptBook, PromptError, messages_of, render

Texts = tuple[str, tuple[str, ...]]  # a prompt, and its answers
REPLAYED = "general"  # the origin of examples against forgetting, which the online methods leave out


@dataclass(frozen=True)
class Row:
    """One example, or one prompt with all that is preferred over something else as an answer to it.

    Tokens of the prompt and of each answer; which answer (by number) was chosen over which; and the lines of the file,
    counted without the empty ones, that say so.
    """

    prompt: int
    answers: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...] = ()
    lines: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return self.prompt + max(self.answers)


class Counter:
    """Counts tokens as one model's tokenizer and chat template make them."""

    def __init__(self, model: Path, system: str) -> None:
        """`model` is a folder with tokenizer.json; `system` the domain's system prompt."""
        self._book = PromptBook(model)
        self._system = system

    def rows(self, path: Path) -> list[Row]:
        """The lengths of a file of examples or preferences, in order; a record of another kind counts as plain text.

        Preferences are put together by prompt and each answer is counted once, as in tasks/train/preference/rows.py.
        """
        return self.count(_records(path))

    def prompts(self, path: Path, longest: int) -> list[Row]:
        """The domain's prompts of a file of examples, each once, of at most `longest` tokens.

        As tasks/train/align/online/rollouts.py takes them: without the examples that are there against forgetting.
        """
        kept: dict[str, int] = {}
        for line, record in enumerate(_records(path)):
            if record.get("origin") != REPLAYED and (texts := self._texts(record)):
                kept.setdefault(texts[0], line)
        rows = [Row(length, (0,), (), (line,)) for length, line in zip(self._lengths(kept), kept.values(), strict=True)]
        return [row for row in rows if row.prompt <= longest]

    def texts(self, path: Path) -> int:
        """Tokens of a Parquet table of documents, each with the token that ends it."""
        import pyarrow.parquet as pq

        found = pq.read_table(path, columns=["text"]).column("text").to_pylist()
        return sum(self._lengths(found)) + len(found)

    def count(self, records: Sequence[dict[str, Any]]) -> list[Row]:
        """One row an example, or a prompt of preferences."""
        groups = _groups([self._texts(record) for record in records])
        flat = self._lengths([text for group in groups for text in (group.prompt, *group.answers)])
        rest = iter(flat)
        # An answer ends with the end-of-turn token.
        return [
            Row(next(rest), tuple(next(rest) + 1 for _ in group.answers), tuple(group.pairs), tuple(group.lines))
            for group in groups
        ]

    def _texts(self, record: dict[str, Any]) -> Texts | None:
        """A record's prompt and answers; None for one whose prompt cannot be rendered."""
        try:
            if "chosen" in record:
                return render(self._book, self._opened(record["prompt"])), (record["chosen"], record["rejected"])
            if "instruction" in record:
                from tasks.core.records import Example

                example = Example.model_validate(record)
                messages = messages_of(example.system or self._system, example.prompt, example.history)
                return render(self._book, messages), (example.output,)
        except PromptError:
            return None
        return "", (str(record.get("text", "")),)

    def _opened(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """A conversation without a system message gets the domain's."""
        if not self._system or messages[0]["role"] == "system":
            return messages
        return [{"role": "system", "content": self._system}, *messages]

    def _lengths(self, texts: Iterable[str]) -> list[int]:
        encoded = self._book.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [len(found.ids) for found in encoded]


def _records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    return [json.loads(line) for line in lines if line.strip()]


@dataclass
class _Group:
    """Texts of a row."""

    prompt: str
    answers: list[str]
    pairs: list[tuple[int, int]]
    lines: list[int]


def _groups(records: Sequence[Texts | None]) -> list[_Group]:
    """Each example by itself; preferences by prompt, in order of their first."""
    found: list[_Group] = []
    known: dict[str, _Group] = {}
    for line, texts in enumerate(records):
        if texts is None:
            continue
        prompt, answers = texts
        if len(answers) == 1:
            found.append(_Group(prompt, list(answers), [], [line]))
            continue
        if prompt not in known:
            known[prompt] = _Group(prompt, [], [], [])
            found.append(known[prompt])
        group = known[prompt]
        group.answers += [text for text in dict.fromkeys(answers) if text not in group.answers]
        group.pairs.append((group.answers.index(answers[0]), group.answers.index(answers[1])))
        group.lines.append(line)
    return found
