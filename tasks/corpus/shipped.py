"""A domain's own preferences as people write them: needed are `prompt` (messages, or the text of one), `chosen` and
`rejected`; `source` is their line where none is given, and an id is never asked for: it is the hash of the content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.corpus.lines import bad_line, text_problem
from tasks.corpus.rows import read_rows
from tasks.records import BadLine, Preference, cause_of, make_preference


def read_shipped(path: Path, bad: list[BadLine]) -> list[Preference]:
    """The preferences of a domain's file; a line that is none goes to `bad` with its cause."""
    found = []
    for row in read_rows(path):
        try:
            if row.cause:
                raise ValueError(row.cause)
            found.append(_shipped(row.fields, f"{path.name}:{row.number}"))
        except ValueError as error:  # pydantic's is one
            bad.append(bad_line(path, row.number, cause_of(error), row.text))
    return found


def _shipped(fields: dict[str, Any], place: str) -> Preference:
    if unknown := fields.keys() - {*Preference.model_fields}:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}")
    prompt, source = fields.get("prompt"), fields.get("source") or place
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    sources = [source] if isinstance(source, str) else source
    one = Preference.model_validate({**fields, "id": "0" * 64, "prompt": messages, "source": sources})
    texts = [one.chosen, one.rejected, *(message.content for message in one.prompt)]
    if problem := next(filter(None, map(text_problem, texts)), ""):
        raise ValueError(problem)
    return make_preference(one.prompt, one.chosen, one.rejected, one.source)
