"""Human questions and answers become examples; advertising is left out, and every row is accounted for.

Rows come as Alpaca (instruction, input, output, system, history), as ShareGPT (conversations, or messages as in the
OpenAI API), or as any table or JSON whose columns domain.yaml names. A conversation is one example for each of its
answers that is to be learnt, with what was said before as history.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.domain import Columns, HumanSource
from tasks.core.records import BadLine, Example, Receipt, Turn, make_example
from tasks.corpus.reading.conversations import TURN_FIELDS, Exchange, conversation_in, exchanges, without_thoughts
from tasks.corpus.reading.lines import bad_line, by_cause
from tasks.corpus.reading.rows import FRAMED, Row, SourceError, read_rows, unread
from tasks.corpus.reading.values import (
    field_of,
    is_absent,
    listed,
    needed_text,
    number_as_text,
    optional_text,
    texts_in,
)
from tasks.text.markup import html_in, role_mark_in

STAGE = "ingest"
# The end of a sentence in Latin or Chinese writing: a mark followed by space, or a full-width mark.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
ALPACA = Columns(question="instruction", answer="output", input="input", system="system", history="history")


def read_human(
    source: HumanSource, paths: list[Path], language: str
) -> tuple[list[Example], list[Receipt], list[BadLine]]:
    """One source of human Q&A as a whole: the examples, the receipts of kept and dropped ones, the quarantine."""
    bad: list[BadLine] = []
    pairs = list(human_rows(source, paths, language, bad))
    return [example for example, receipt in pairs if receipt.kept], [receipt for _, receipt in pairs], bad


def human_rows(
    source: HumanSource, paths: list[Path], language: str, bad: list[BadLine], unused: Counter[str] | None = None
) -> Iterator[tuple[Example, Receipt]]:
    """The examples of each row, each with its receipt, one row in memory at a time; what holds none goes to `bad`.

    A row is one example, or one for each answer of its conversation that is to be learnt. An example that holds HTML or
    role marks has a receipt that says so, and its row goes to `bad` as well. `unused` counts the rows in which a field
    holds something that no column of the source names, as "<file>: <field>". Raises SourceError: a file has no row in
    the form that domain.yaml says; an unusable table.
    """
    for path in paths:
        columns: Columns | None = None
        read, refusal = 0, None
        for row in read_rows(path):
            try:
                if row.cause:
                    raise ValueError(row.cause)
                if read == 0:
                    columns = columns_of(source, path, row.fields)
                read += 1
                if unused is not None:
                    unused.update(f"{path.name}: {name}" for name in unmapped(row.fields, columns))
                pairs = _examples_of(row, columns, source, language, f"{path.name}:{row.place}")
            except (ValueError, SourceError) as error:
                refusal = refusal or (error if isinstance(error, SourceError) else None)
                bad.append(bad_line(path, row.number, f"{error}{row.sheet and f' (sheet {row.sheet})'}", row.text))
                continue
            marked = [f"{r.reason}: {r.detail}" for _, r in pairs if not r.kept and r.detail]  # the piece of markup
            bad += [bad_line(path, row.number, cause, row.text) for cause in dict.fromkeys(marked)]
            yield from pairs
        if not read:
            here = by_cause(line for line in bad if line.file == path.as_posix())
            raise refusal or SourceError("\n  ".join([f"{path}: not one row can be read", *here]))


def unmapped(fields: dict[str, Any], columns: Columns | None) -> list[str]:
    """The fields of a row that hold something and are not read, those of turns and metadata that is no text too."""
    if columns is None:
        name, turns = conversation_in(fields)
        within = [f"{name}.{key}" for turn in turns if isinstance(turn, dict) for key in unread(turn, TURN_FIELDS)]
        return [*unread(fields, {name, "system"}), *dict.fromkeys(within)]
    used = set(columns.model_dump().values())
    beside = [path for path in (columns.category, columns.sources, columns.id) if texts_in(fields, path) is None]
    return unread(fields, used | {name.split(".")[0] for name in used}) + beside


def columns_of(source: HumanSource, path: Path, fields: dict[str, Any]) -> Columns | None:
    """How a file's rows are read: the columns domain.yaml names, Alpaca's, or None for ShareGPT's conversations.

    Raises SourceError: neither named nor to be told from the first row, or a named column is not in the table.
    """
    if source.form == "sharegpt" or (source.form == "auto" and not source.columns and conversation_in(fields)[1]):
        return None
    if source.columns:
        if path.suffix.casefold() in FRAMED:
            wanted = [name for name in source.columns.model_dump().values() if name]
            if missing := [name for name in wanted if name not in fields]:
                raise SourceError(f"{path}: no column {', '.join(missing)}; it has {', '.join(fields)}")
        return source.columns
    if source.form == "alpaca" or {"instruction", "output"} <= fields.keys():
        return ALPACA
    raise SourceError(
        f"{path}: which column is the question and which the answer? Name them under `columns` of "
        f"{source.name} in domain.yaml; the file has {', '.join(fields) or 'none'}"
    )


def strip_advertising(answer: str, names: list[str]) -> str:
    """The answer without the sentences that name an advertiser; sentence breaks inside stay as they are."""
    if not any(name.casefold() in answer.casefold() for name in names):
        return answer
    kept = [part for part in SENTENCE_END.split(answer) if not any(n.casefold() in part.casefold() for n in names)]
    joiner = "" if re.search(r"[。！？]", answer) else " "
    return joiner.join(kept).strip()


def _examples_of(
    row: Row, columns: Columns | None, source: HumanSource, language: str, line: str
) -> list[tuple[Example, Receipt]]:
    said = [_mapped(row.fields, columns)] if columns else exchanges(row.fields)
    return [_example_of(row, one, columns, source, language, line) for one in said]


def _example_of(
    row: Row, said: Exchange, columns: Columns | None, source: HumanSource, language: str, line: str
) -> tuple[Example, Receipt]:
    output, names = said.output, source.advertising
    answer = without_thoughts(output)
    cleaned = strip_advertising(answer, names)
    beside = (columns.id, columns.category, columns.sources) if columns else ("", "", "")
    identity, category, sources = (texts_in(row.fields, path) or () for path in beside)
    example = make_example(
        instruction=said.instruction,
        input=optional_text(row.fields, columns.input) if columns else "",
        output=cleaned or answer,
        system=said.system,
        history=said.history,
        language=language,
        origin="human",
        source=(f"{source.name}/{'; '.join(identity) or line}", *sources),
        category="; ".join(category),
    )
    advertised = any(name.casefold() in example.prompt.casefold() for name in names) or not cleaned
    reason, detail = ("advertises its publisher", "") if advertised else markup_problem(example)
    kept = not reason
    if kept:
        left_out = ["thoughts before the answer were left out"] * (answer != output)
        left_out += ["a sentence that names the publisher was left out"] * (cleaned != answer)
        reason, detail = "read", "; ".join(left_out)
    return example, Receipt(example_id=example.id, stage=STAGE, kept=kept, reason=reason, detail=detail)


def markup_problem(example: Example) -> tuple[str, str]:
    """Why an example is not trained on, and the piece of text that is the matter; nothing where there is none."""
    turns = [text for turn in example.history for text in (turn.user, turn.assistant)]
    for text in (example.system, *turns, example.prompt, example.output):
        if mark := role_mark_in(text):
            return "role mark in the text", mark
    for text in (example.output, *(turn.assistant for turn in example.history)):
        if tag := html_in(text):
            return "HTML in the answer", tag
    return "", ""


def _mapped(fields: dict[str, Any], columns: Columns) -> Exchange:
    return Exchange(
        needed_text(field_of(fields, columns.question), columns.question),
        needed_text(number_as_text(field_of(fields, columns.answer)), columns.answer),
        optional_text(fields, columns.system),
        _history(fields, columns.history),
    )


def _history(row: dict[str, Any], path: str) -> tuple[Turn, ...]:
    pairs = listed(row.get(path), path)
    if is_absent(pairs):
        return ()
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"field {path!r} must be a list of pairs of user and assistant")
    return tuple(
        Turn(user=needed_text(one, "user"), assistant=without_thoughts(needed_text(two, "assistant")))
        for one, two in pairs
    )
