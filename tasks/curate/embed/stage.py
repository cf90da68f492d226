"""Stage `embed`: what every example and evaluation item means, as unit vectors of its question and of its whole.

An example with earlier turns has a second row, of its last exchange alone.

Computed once, for deduplication, selection and the leak guard alike. The model is any sentence-transformers folder that
domain.yaml names. Where no such model knows the domain's language, `characters` stands in (characters.py), which needs
no model and no words, and sees shared wording rather than meaning. docs/data.md has how much each finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import fresh_directory
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem, Example
from tasks.core.stage import run_stage
from tasks.core.tables import BATCH, batched, read_batches, records_of, table_writer
from tasks.similarity.embedder import (
    Encode,
    embeddings_table,
    encoder,
    evaluation_items,
    last_exchanges,
    question_text,
    whole_text,
)

if TYPE_CHECKING:
    pass

STAGE = "embed"


def _example_batches(path: Path) -> Iterator[list[tuple[str, str, str]]]:
    for table in read_batches(path):
        rows = (row for example in records_of(table, Example) for row in (example, *last_exchanges(example)))
        yield [(row.id, question_text(row), whole_text(row)) for row in rows]


def _item_batches(items: Iterable[EvaluationItem]) -> Iterator[list[tuple[str, str, str]]]:
    for batch in batched(items, BATCH):
        yield [(item.id, item.prompt, item.whole) for item in batch]


def _write(path: Path, batches: Iterable[list[tuple[str, str, str]]], encode: Encode) -> int:
    """Write one file of embeddings, a batch in memory at a time; returns its rows."""
    schema = embeddings_table([("", "", "")], encode).schema
    with table_writer(path, schema) as writer:
        for batch in batches:
            writer.write(embeddings_table(batch, encode))
        return writer.rows


def _corpus(paths: Sequence[Path], items: Sequence[EvaluationItem]) -> Iterator[str]:
    for path in paths:
        for batch in _example_batches(path):
            for _, question, whole in batch:
                yield question
                yield whole
    for item in items:
        yield item.prompt
        yield item.whole


def embed() -> str:
    """Embed data/validate, the replay pools and the evaluation items into data/embed; returns what happened."""
    params = load_params()
    domain, items = load_domain(params.domain), evaluation_items()
    names = ("examples", "general", "safety")
    files = {name: layout.VALIDATE / f"{name}.parquet" for name in names}
    encode = encoder(domain, params.embed, _corpus(list(files.values()), items))
    with fresh_directory(layout.EMBED) as folder:
        rows = sum(_write(folder / f"{name}.parquet", _example_batches(path), encode) for name, path in files.items())
        rows += _write(folder / "evaluation.parquet", _item_batches(items), encode)
    return f"{rows} rows embedded by {domain.embedder.name}"


if __name__ == "__main__":
    run_stage(STAGE, embed)
