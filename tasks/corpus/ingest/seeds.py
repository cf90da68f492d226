"""Seed instructions with answers, checked by hand, and questions to evaluate on: small files, read strictly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tasks.core.domain import EvaluationSource, SeedSource
from tasks.core.records import BadLine, EvaluationItem, Example, Seed, make_example, make_item
from tasks.corpus.ingest.human import markup_problem
from tasks.corpus.reading.lines import bad_line, text_problem
from tasks.corpus.reading.rows import Row, read_rows

T = TypeVar("T")
SEED_FIELDS = {"instruction", "input", "output", "classification"}
ITEM_FIELDS = {"question", "answer", "category"}


def read_seeds(source: SeedSource, paths: list[Path], language: str, bad: list[BadLine]) -> list[tuple[Seed, Example]]:
    """Each seed with the example that it also is; the two have one id, so that what a seed led to can be traced."""
    return _each_once("seed", source.name, paths, partial(_seed, language=language), bad)


def read_items(source: EvaluationSource, paths: list[Path], bad: list[BadLine]) -> list[EvaluationItem]:
    """The items of a domain's own evaluation files."""
    return _each_once("question", source.name, paths, _item, bad)


def _each_once(
    what: str, name: str, paths: list[Path], read: Callable[[Row, str], tuple[str, T]], bad: list[BadLine]
) -> list[T]:
    """What `read` makes of each row and its place, once for each id; what it refuses goes to `bad`."""
    found: dict[str, T] = {}
    for path in paths:
        for row in read_rows(path):
            try:
                identity, one = read(row, f"{name}/{path.name}:{row.number}")
                if identity in found:
                    raise ValueError(f"the same {what} stands here twice")
                found[identity] = one
            except ValueError as error:
                bad.append(bad_line(path, row.number, str(error), row.text))
    return list(found.values())


def _item(row: Row, source: str) -> tuple[str, EvaluationItem]:
    fields = _fields(row, ITEM_FIELDS)
    item = make_item(
        set="domain",
        prompt=_text(fields, "question", needed=True),
        reference=_text(fields, "answer", needed=True),
        category=_text(fields, "category"),
        source=(source,),
    )
    return item.id, item


def _seed(row: Row, source: str, language: str) -> tuple[str, tuple[Seed, Example]]:
    fields = _fields(row, SEED_FIELDS)
    classification = fields.get("classification") or False
    if not isinstance(classification, bool):
        raise ValueError("field 'classification' must be true or false")
    said = {
        "instruction": _text(fields, "instruction", needed=True),
        "input": _text(fields, "input"),
        "output": _text(fields, "output", needed=True),
    }
    example = make_example(**said, language=language, origin="human", source=(source,), category="seed")
    reason, markup = markup_problem(example)
    if reason:
        raise ValueError(f"{reason}: {markup}")
    return example.id, (Seed(id=example.id, **said, classification=classification), example)


def _fields(row: Row, known: set[str]) -> dict[str, Any]:
    if row.cause:
        raise ValueError(row.cause)
    if unknown := row.fields.keys() - known:
        raise ValueError(f"unknown fields {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    return row.fields


def _text(fields: dict[str, Any], name: str, needed: bool = False) -> str:
    value = fields.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value.strip()):
        raise ValueError(f"field {name!r} must be a text{' that is not empty' if needed else ''}")
    if problem := text_problem(value):
        raise ValueError(f"field {name!r}: {problem}")
    return value.strip()
