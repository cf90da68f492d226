"""A domain's own preferences as people write them: needed are `prompt` (messages, or the text of one), `chosen` and
`rejected` (texts, or as TRL has them: conversations that end with the assistant and are alike before, as the prompt).
`source` is their line where none is given; an id is never asked for: it is the hash of the content. Other fields are
not read.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tasks.core.records import BadLine, Preference, cause_of, make_preference
from tasks.corpus.reading.lines import bad_line, text_problem
from tasks.corpus.reading.rows import read_rows, unread


def read_shipped(path: Path, bad: list[BadLine], unused: Counter[str]) -> list[Preference]:
    """The preferences of a domain's file; a line that is none goes to `bad` with its cause.

    `unused` counts the rows in which a field holds something that is not read.
    """
    found = []
    for row in read_rows(path):
        try:
            if row.cause:
                raise ValueError(row.cause)
            unused.update(unread(row.fields, Preference.model_fields))
            found.append(_shipped(row.fields, f"{path.name}:{row.number}"))
        except ValueError as error:  # pydantic's is one
            bad.append(bad_line(path, row.number, cause_of(error), row.text))
    return found


def _shipped(fields: dict[str, Any], place: str) -> Preference:
    messages, chosen, rejected = _parted(fields)
    for name, value, kind in (("prompt", messages, list), ("chosen", chosen, str), ("rejected", rejected, str)):
        if not isinstance(value, kind):
            raise ValueError(f"{name}: needed is a text, or a list of messages as OpenAI writes them")
    source = fields.get("source") or place
    sources = [str(one) for one in (source if isinstance(source, list) else [source])]
    one = Preference(id="0" * 64, prompt=messages, chosen=chosen, rejected=rejected, source=tuple(sources))
    texts = [one.chosen, one.rejected, *(message.content for message in one.prompt)]
    if problem := next(filter(None, map(text_problem, texts)), ""):
        raise ValueError(problem)
    return make_preference(one.prompt, one.chosen, one.rejected, one.source)


def _parted(fields: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Prompt as messages, and the two answers; of two conversations the last messages answer those before."""
    prompt, chosen, rejected = (fields.get(name) for name in ("prompt", "chosen", "rejected"))
    messages: Any = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not (isinstance(chosen, list) and isinstance(rejected, list)):
        return messages, chosen, rejected
    ends = [answer[-1] if answer else None for answer in (chosen, rejected)]
    if not all(isinstance(end, dict) and end.get("role") == "assistant" for end in ends):
        raise ValueError("chosen and rejected: a conversation has to end with a message of the assistant")
    before = chosen[:-1]
    if before != rejected[:-1] or (before and (messages or None) not in (None, before, before[-1:])):
        raise ValueError("chosen and rejected: what stands before the last message has to be equal, and the prompt")
    return before or messages, chosen[-1].get("content"), rejected[-1].get("content")
