"""Rows as the suites see them: plain columns, and beside the text what an expectation cannot see for itself.

`content` is everything of a row that a model may read, `text` what has to be in the domain's language, `question` all
that the user says. Lengths are in tokens of the base model, the prompt rendered with its chat template.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.records import (
    AnyRecord,
    Document,
    EvaluationItem,
    Example,
    Preference,
    Record,
    Seed,
    Triple,
    read_own_jsonl,
)
from tasks.core.tables import BATCH, batched, read_batches, records_of
from tasks.curate.quality.suite import columns_of
from tasks.text.prompts import PromptError, messages_of, render

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]


def example_rows(examples: list[Example], tokenizer: Any, system: str) -> list[Row]:
    """One row an example; `system` is the prompt of examples that have none of their own.

    `total_tokens` is None where the chat template refuses the conversation.
    """
    prompts = [_rendered(example, tokenizer, system) for example in examples]
    asked = _lengths(tokenizer, [prompt or "" for prompt in prompts])
    answered = [length + 1 for length in _lengths(tokenizer, [example.output for example in examples])]  # its end
    return [
        example.model_dump(mode="json")
        | {
            "question": example.prompt,
            "text": f"{example.prompt}\n{example.output}",
            "content": "\n".join([example.system, *_said(example), example.prompt, example.output]),
            "output_tokens": output,
            "total_tokens": None if prompt is None else length + output,
        }
        for example, prompt, length, output in zip(examples, prompts, asked, answered, strict=True)
    ]


def _rendered(example: Example, tokenizer: Any, system: str) -> str | None:
    try:
        return render(tokenizer, messages_of(example.system or system, example.prompt, example.history))
    except PromptError:
        return None


def _said(example: Example) -> list[str]:
    return [text for turn in example.history for text in (turn.user, turn.assistant)]


def _lengths(tokenizer: Any, texts: list[str]) -> list[int]:
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]] if texts else []


def row_of(record: Record) -> Row:
    """A record other than an example as a row. A triple's id is where it stands; a preference's question is its prompt.

    Raises:
        TypeError: there is no suite for this kind of record.
    """
    more: Row = {}
    match record:
        case Seed():
            more["text"] = content = f"{record.instruction}\n{record.input}\n{record.output}"
        case Document():
            content = f"{record.title}\n{record.text}"
        case Triple():
            content = f"{record.subject}\n{record.relation}\n{record.object}"
            more["id"] = f"{record.file}:{record.line}"
        case EvaluationItem():
            more["question"] = record.prompt
            more["text"] = content = "\n".join([record.prompt, record.reference, *record.choices])
        case Preference():
            more["question"] = "\n".join(message.content for message in record.prompt)
            more["text"] = content = f"{more['question']}\n{record.chosen}\n{record.rejected}"
        case _:
            raise TypeError(type(record).__name__)
    return record.model_dump(mode="json") | more | {"content": content}


def frame(suite: str, rows: list[Row]) -> pd.DataFrame:
    """Rows as the table that a suite expects."""
    import pandas as pd

    return pd.DataFrame(rows, columns=columns_of(suite))


def batches_of(path: Path, kind: type[AnyRecord]) -> Iterator[list[AnyRecord]]:
    """The records of a Parquet or JSON lines file, a batch at a time.

    Raises:
        RecordError: the file is missing or damaged.
    """
    if path.suffix == ".parquet":
        for table in read_batches(path):
            yield records_of(table, kind)
    else:
        yield from batched(read_own_jsonl(path, kind), BATCH)
