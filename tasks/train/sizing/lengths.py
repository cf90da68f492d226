"""How many tokens the examples of a training have, counted without loading torch.

transformers' tokenizer takes eight seconds and 300 MB to import; sizing answers at once and runs inside the stage, so
it uses the same tokenizer file through `tokenizers`, and the chat template through jinja2 as transformers renders it.
A test compares every length with what training itself encodes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.prompts import messages_of


@dataclass(frozen=True)
class Row:
    """One example: the tokens of its prompt and of each answer to it (chosen and rejected, of a preference)."""

    prompt: int
    answers: tuple[int, ...]

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest answer."""
        return self.prompt + max(self.answers)


class Counter:
    """Counts tokens as one model's tokenizer and chat template make them."""

    def __init__(self, model: Path, system: str) -> None:
        """`model` is a folder with tokenizer.json; `system` the domain's system prompt."""
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._system = system
        self._template, self._names = _template(model)

    def rows(self, path: Path) -> list[Row]:
        """The lengths of a file of examples or preferences, in order; a record of another kind counts as plain text."""
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        return self.count([json.loads(line) for line in lines if line.strip()])

    def texts(self, path: Path) -> int:
        """Tokens of a Parquet table of documents, each with the token that ends it."""
        import pyarrow.parquet as pq

        found = pq.read_table(path, columns=["text"]).column("text").to_pylist()
        return sum(self._lengths(found)) + len(found)

    def count(self, records: Sequence[dict[str, Any]]) -> list[Row]:
        """One row a record."""
        prompts, answers = zip(*map(self._texts, records), strict=True) if records else ((), ())
        flat = self._lengths([*prompts, *(answer for of in answers for answer in of)])
        rest = iter(flat[len(prompts) :])
        # An answer ends with the end-of-turn token.
        return [
            Row(length, tuple(next(rest) + 1 for _ in of))
            for length, of in zip(flat[: len(prompts)], answers, strict=True)
        ]

    def _texts(self, record: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
        if "chosen" in record:
            return self._render(record["prompt"]), (_said(record["chosen"]), _said(record["rejected"]))
        if "instruction" in record:
            from tasks.records import Example

            example = Example.model_validate(record)
            messages = messages_of(example.system or self._system, example.prompt, example.history)
            return self._render(messages), (example.output,)
        return "", (str(record.get("text", "")),)

    def _render(self, messages: Any) -> str:
        if isinstance(messages, str):
            messages = messages_of(self._system, messages)
        rendered: str = self._template.render(messages=messages, add_generation_prompt=True, **self._names)
        return rendered

    def _lengths(self, texts: Iterable[str]) -> list[int]:
        return [len(found.ids) for found in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _said(answer: Any) -> str:
    """The text of an answer, which preferences may hold as a message."""
    if isinstance(answer, list):
        return "".join(str(message["content"]) for message in answer)
    return str(answer)


def _template(model: Path) -> tuple[Any, dict[str, str]]:
    """The chat template, and the special tokens that it may name."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    path = model / "chat_template.jinja"
    text = path.read_text(encoding="utf-8") if path.is_file() else config.get("chat_template", "")
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    tokens = {key: value for key, value in config.items() if key.endswith("_token") and isinstance(value, str)}
    return environment.from_string(text), tokens
