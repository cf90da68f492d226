"""Human questions and answers become examples; advertising is left out, and every row is accounted for.

Rows come as Alpaca (instruction, input, output, system, history), as ShareGPT (conversations, or messages as in the
OpenAI API), or as any table or JSON whose columns domain.yaml names. A ShareGPT conversation is one example: its last
exchange, with the earlier ones as history.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.core.domain import Columns, HumanSource
from tasks.core.records import BadLine, Example, Receipt, Turn, make_example
from tasks.corpus.reading.cells import ErrorCell
from tasks.corpus.reading.lines import bad_line, by_cause, text_problem
from tasks.corpus.reading.rows import Row, SourceError, read_rows, unread
from tasks.text.markup import THINKS, THOUGHT, html_in, role_mark_in

STAGE = "ingest"
# The end of a sentence in Latin or Chinese writing: a mark followed by space, or a full-width mark.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
ALPACA = Columns(question="instruction", answer="output", input="input", system="system", history="history")
CONVERSATIONS = ("conversations", "messages", "conversation")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
         "bing": "assistant", "bard": "assistant", "model": "assistant", "bot": "assistant", "ai": "assistant",
         "system": "system", "developer": "system"}  # fmt: skip
FLAGS = ("weight", "train", "loss")  # of a turn: none of them may be 0 or false, or its answer is not to be learnt
TURN_FIELDS = ("from", "role", "value", "content", *FLAGS)
NO_VALUE = ("", "nan", "NaN", "None", "NULL", "null", "N/A", "n/a", "#N/A", "<NA>")  # as programs write it


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
    """Each row that is an example, with its receipt, one in memory at a time; what cannot be one goes to `bad`.

    An example that holds HTML or role marks has a receipt that says so, and its row goes to `bad` as well. `unused`
    counts the rows in which a field holds something that no column of the source names, as "<file>: <field>". Raises
    SourceError: a file has no row in the form that domain.yaml says; an unusable table.
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
                example, receipt = _example_of(row, columns, source, language, f"{path.name}:{row.place}")
            except (ValueError, SourceError) as error:
                refusal = refusal or (error if isinstance(error, SourceError) else None)
                bad.append(bad_line(path, row.number, f"{error}{row.sheet and f' (sheet {row.sheet})'}", row.text))
                continue
            if not receipt.kept and receipt.detail:  # the piece of markup
                bad.append(bad_line(path, row.number, f"{receipt.reason}: {receipt.detail}", row.text))
            yield example, receipt
        if not read:
            here = by_cause(line for line in bad if line.file == path.as_posix())
            raise refusal or SourceError("\n  ".join([f"{path}: not one row can be read", *here]))


def unmapped(fields: dict[str, Any], columns: Columns | None) -> list[str]:
    """The fields of a row that hold something and are not read, those of turns and metadata that is no text too."""
    if columns is None:
        name, turns = _conversation_in(fields)
        within = [f"{name}.{key}" for turn in turns if isinstance(turn, dict) for key in unread(turn, TURN_FIELDS)]
        return [*unread(fields, {name, "system"}), *dict.fromkeys(within)]
    used = set(columns.model_dump().values())
    beside = [path for path in (columns.category, columns.sources, columns.id) if _texts(fields, path) is None]
    return unread(fields, used | {name.split(".")[0] for name in used}) + beside


def columns_of(source: HumanSource, path: Path, fields: dict[str, Any]) -> Columns | None:
    """How a file's rows are read: the columns domain.yaml names, Alpaca's, or None for ShareGPT's conversations.

    Raises SourceError: neither named nor to be told from the first row, or a named column is not in the table.
    """
    if source.form == "sharegpt" or (source.form == "auto" and not source.columns and _conversation_in(fields)[1]):
        return None
    if source.columns:
        if path.suffix.casefold() in (".csv", ".tsv", ".xlsx"):
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


def _example_of(
    row: Row, columns: Columns | None, source: HumanSource, language: str, line: str
) -> tuple[Example, Receipt]:
    conversation = _mapped(row.fields, columns) if columns else _conversed(row.fields)
    output, names = conversation.pop("output"), source.advertising
    answer = _spoken(output)
    cleaned = strip_advertising(answer, names)
    beside = (columns.id, columns.category, columns.sources) if columns else ("", "", "")
    identity, category, sources = (_texts(row.fields, path) or () for path in beside)
    example = make_example(
        **conversation,
        output=cleaned or answer,
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


def _mapped(fields: dict[str, Any], columns: Columns) -> dict[str, Any]:
    return {
        "instruction": _text(_field(fields, columns.question), columns.question),
        "input": _optional(fields, columns.input),
        "output": _text(_number_as_text(_field(fields, columns.answer)), columns.answer),
        "system": _optional(fields, columns.system),
        "history": _history(fields, columns.history),
    }


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _spoken(answer: str) -> str:
    """An answer without the thoughts that a reasoning model writes before it; ValueError where nothing follows."""
    opened = THINKS.search(answer)
    spoken = answer if opened and opened.start() else THOUGHT.sub("", answer).strip()
    if not spoken or THINKS.match(spoken):
        raise ValueError("an answer holds thoughts only")
    return spoken


def _conversed(fields: dict[str, Any]) -> dict[str, Any]:
    """A conversation, the system's text first; it ends with the last answer to be learnt, by the FLAGS of its turn."""
    listed = _conversation_in(fields)[1]
    turns = [_turn(turn) for turn in listed]
    learns = [all(str(turn.get(flag)).casefold() not in ("0", "0.0", "false") for flag in FLAGS) for turn in listed]
    within = turns.pop(0)[1] if turns and turns[0][0] == "system" else ""
    beside = _optional(fields, "system")
    system = "\n\n".join(dict.fromkeys(text for text in (beside, within) if text))
    if [role for role, _ in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise ValueError("a conversation must go user, assistant, user, assistant, and end with an answer")
    learnt = [place for place, learn in enumerate(learns[-len(turns) :]) if place % 2 and learn]
    if not learnt:
        raise ValueError(f"no answer of the conversation is to be learnt: each has {', '.join(FLAGS)} 0 or false")
    texts = [text for _, text in turns[: learnt[-1] + 1]]
    earlier = zip(texts[:-2:2], texts[1:-2:2], strict=True)
    history = tuple(Turn(user=user, assistant=_spoken(reply)) for user, reply in earlier)
    return {"instruction": texts[-2], "output": texts[-1], "system": system, "history": history}


def _conversation_in(fields: dict[str, Any]) -> tuple[str, list[Any]]:
    for name in CONVERSATIONS:
        found = _listed(fields.get(name), name)
        if found and isinstance(found, list):
            return name, found
    return "", []


def _listed(value: Any, name: str) -> Any:
    if not isinstance(value, str) or _absent(value):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"field {name!r} is a text, and no JSON: {error}") from None


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise ValueError("a turn of a conversation must be an object")
    role = str(turn.get("from", turn.get("role"))).casefold()
    if role not in ROLES:
        raise ValueError(f"a turn is from {role[:40]!r}; known are {', '.join(ROLES)}")
    if calls := [name for name in ("tool_calls", "function_call") if turn.get(name)]:
        raise ValueError(f"a turn holds {calls[0]}, and an example holds text only")
    name = "value" if "value" in turn else "content"
    content = _joined_parts(turn.get(name))
    return ROLES[role], _optional({name: content}, name) if ROLES[role] == "system" else _text(content, name)


def _joined_parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    kinds = [part.get("type") if isinstance(part, dict) else type(part).__name__ for part in content]
    if others := [kind for kind in kinds if kind != "text"]:
        raise ValueError(f"a turn has a part of type {others[0]!r}, and an example holds text only")
    return "\n".join(str(part.get("text", "")) for part in content)


def _field(row: Any, path: str) -> Any:
    if isinstance(row, dict) and path in row:
        return row[path]  # a column may have a dot in its name
    value = row
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"field {path!r} is missing")
        value = value[part]
    return value


def _absent(value: Any) -> bool:
    """Whether a value is none: null, blank, an error of a sheet, or a word for no value."""
    blank = isinstance(value, str) and value.strip() in NO_VALUE
    return blank or value in (None, [], {}) or isinstance(value, ErrorCell)


def _text(value: Any, name: str) -> str:
    """A text that has to be there. Raises ValueError: it is none, or empty, or holds what no text may hold."""
    if isinstance(value, ErrorCell):
        raise ValueError(f"field {name!r} holds the error {value}")
    if _absent(value):
        word = f"; {value.strip()} is no value" if isinstance(value, str) and value.strip() else ""
        raise ValueError(f"field {name!r} must be a text that is not empty{word}")
    if not isinstance(value, str):
        raise ValueError(f"field {name!r} must be a text, not {type(value).__name__}")
    if problem := text_problem(value):
        raise ValueError(f"field {name!r}: {problem}")
    return value.strip()


def _optional(row: dict[str, Any], path: str) -> str:
    """What is not asked for, such as an input: a text, a number, or a list of them as lines; "" where it is missing."""
    return "\n".join(_items(row, path))


def _items(row: dict[str, Any], path: str) -> list[str]:
    try:
        value = _field(row, path) if path else None
    except ValueError:
        return []
    values = value if isinstance(value, list) else [value]
    return [_text(_number_as_text(one), path) for one in values if not _absent(one)]


def _texts(row: dict[str, Any], path: str) -> tuple[str, ...] | None:
    """A list of texts, or one text with semicolons between, a number as text; None where it holds something else."""
    try:
        items = _items(row, path)
    except ValueError:
        return None
    parts = items[0].split(";") if len(items) == 1 else items
    return tuple(part.strip() for part in parts if part.strip())


def _history(row: dict[str, Any], path: str) -> tuple[Turn, ...]:
    pairs = _listed(row.get(path), path)
    if _absent(pairs):
        return ()
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise ValueError(f"field {path!r} must be a list of pairs of user and assistant")
    return tuple(Turn(user=_text(one, "user"), assistant=_spoken(_text(two, "assistant"))) for one, two in pairs)
