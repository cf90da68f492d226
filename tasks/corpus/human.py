"""Human questions and answers become examples; advertising is left out, and every row is accounted for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tasks.domain import HumanSource
from tasks.records import BadLine, Example, Receipt, make_example

STAGE = "ingest"
# The end of a sentence in Latin or Chinese writing: a mark followed by space, or a full-width mark.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")


def read_human(
    source: HumanSource, paths: list[Path], language: str
) -> tuple[list[Example], list[Receipt], list[BadLine]]:
    """Read one source of human Q&A.

    Returns:
        The examples, one receipt for each row that became or would have become one, and the rows for the quarantine.
    """
    examples: list[Example] = []
    receipts: list[Receipt] = []
    bad: list[BadLine] = []
    for path in paths:
        for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw.decode("utf-8"))
                example, receipt = _example_of(row, source, language, f"{path.name}:{number}")
            except (ValueError, RecursionError) as error:
                text = raw[:2000].decode("utf-8", errors="replace")
                bad.append(BadLine(file=path.as_posix(), line=number, cause=str(error), text=text))
                continue
            receipts.append(receipt)
            if receipt.kept:
                examples.append(example)
    return examples, receipts, bad


def strip_advertising(answer: str, names: list[str]) -> str:
    """The answer without the sentences that name an advertiser; sentence breaks inside stay as they are."""
    if not any(name.casefold() in answer.casefold() for name in names):
        return answer
    kept = [part for part in SENTENCE_END.split(answer) if not any(n.casefold() in part.casefold() for n in names)]
    joiner = "" if re.search(r"[。！？]", answer) else " "
    return joiner.join(kept).strip()


def _example_of(row: Any, source: HumanSource, language: str, line: str) -> tuple[Example, Receipt]:
    columns = source.columns
    question, answer = _text(row, columns.question), _text(row, columns.answer)
    names = source.advertising
    cleaned = strip_advertising(answer, names)
    advertised = any(name.casefold() in question.casefold() for name in names) or not cleaned
    identity = _text(row, columns.id) if columns.id else line
    example = make_example(
        instruction=question,
        output=cleaned or answer,
        language=language,
        origin="human",
        source=(f"{source.name}/{identity}", *_texts(row, columns.sources)),
        category=_text(row, columns.category) if columns.category else "",
    )
    reason = "advertises its publisher" if advertised else "read"
    detail = "a sentence that names the publisher was left out" if cleaned != answer and not advertised else ""
    return example, Receipt(example_id=example.id, stage=STAGE, kept=not advertised, reason=reason, detail=detail)


def _field(row: Any, path: str) -> Any:
    value = row
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"field {path!r} is missing")
        value = value[part]
    return value


def _text(row: Any, path: str) -> str:
    value = _field(row, path)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {path!r} must be a text that is not empty")
    return value.strip()


def _texts(row: Any, path: str) -> tuple[str, ...]:
    if not path:
        return ()
    value = _field(row, path)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"field {path!r} must be a list of texts")
    return tuple(value)
