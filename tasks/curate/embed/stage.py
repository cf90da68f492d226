"""Stage `embed`: what every example and evaluation item means, as unit vectors of its question and of its whole.

An example with earlier turns has a second row, of its last exchange alone. The model is domain.yaml's, or `characters`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import fresh_directory
from tasks.core.params import load_params
from tasks.core.records import Example
from tasks.core.stage import run_stage
from tasks.core.tables import read_batches, records_of, table_writer
from tasks.similarity.embedder import (
    embeddings_table,
    encoder,
    evaluation_items,
    last_exchanges,
    question_text,
    whole_text,
)

STAGE = "embed"
EXAMPLES = [layout.VALIDATE / f"{name}.parquet" for name in ("examples", "general", "safety")]
ITEMS = "evaluation.parquet"
Rows = list[tuple[str, str, str]]  # id, question, whole


def batches_of(path: Path) -> Iterator[Rows]:
    """The rows to embed of a file of examples, a batch at a time."""
    for table in read_batches(path):
        examples = [one for example in records_of(table, Example) for one in (example, *last_exchanges(example))]
        yield [(one.id, question_text(one), whole_text(one)) for one in examples]


def embed() -> str:
    """Embed data/validate, the replay pools and the evaluation items into data/embed; returns what happened."""
    params = load_params()
    domain = load_domain(params.domain)
    items = [(item.id, item.prompt, item.whole) for item in evaluation_items()]

    def all_batches() -> Iterator[tuple[str, Rows]]:
        for path in EXAMPLES:
            yield from ((path.name, batch) for batch in batches_of(path))
        yield ITEMS, items

    corpus = (text for _, batch in all_batches() for _, *texts in batch for text in texts)
    encode = encoder(domain, params.embed, corpus)
    schema, rows = embeddings_table([("", "", "")], encode).schema, 0
    with fresh_directory(layout.EMBED) as folder, ExitStack() as files:
        names = [path.name for path in EXAMPLES] + [ITEMS]
        writers = {name: files.enter_context(table_writer(folder / name, schema)) for name in names}
        for name, batch in all_batches():
            if batch:
                writers[name].write(embeddings_table(batch, encode))
                rows += len(batch)
    return f"{rows} rows embedded by {domain.embedder.name}"


if __name__ == "__main__":
    run_stage(STAGE, embed)
