"""Preferences that a domain ships, read from tables, JSON and datasets folders in the forms that people keep them in.

A row holds what was asked and two answers, `chosen` and `rejected`: each a text, or messages as OpenAI, ShareGPT and
TRL write them. What was asked is `prompt` (or a question, or an instruction with its input), the turns of a
conversation, or what stands before both answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.core.domain import Domain, PreferenceColumns
from tasks.core.records import BadLine, Message, Preference, cause_of, make_preference
from tasks.corpus.reading.conversations import CONVERSATIONS, conversation_in, spoken_turn
from tasks.corpus.reading.lines import bad_line, by_cause, text_problem
from tasks.corpus.reading.rows import SourceError, read_rows, unread
from tasks.corpus.reading.values import field_of, is_absent, number_as_text, optional_text

NAME = "preferences.jsonl"  # in the domain's folder, whether domain.yaml names it or not
ASKED = ("prompt", "question", "instruction", "query")
READ = {*ASKED, *CONVERSATIONS, "input", "system", "chosen", "rejected", "source", "id"}


def shipped_preferences(domain: Domain, bad: list[BadLine], unused: Counter[str]) -> list[Preference]:
    """Those of domains/NAME/preferences.jsonl and of the sources that domain.yaml names; see read_shipped.

    Raises SourceError: of a source that domain.yaml names not one row is a preference.
    """
    own = domain.folder / NAME
    found = read_shipped(own, bad, unused) if own.is_file() else []
    for source in domain.preferences:
        for path in domain.paths(source):
            read = read_shipped(path, bad, unused, source.columns, f"{source.name}/")
            if not read:
                causes = by_cause(line for line in bad if line.file == path.as_posix())
                raise SourceError("\n  ".join([f"{path}: not one row is a preference", *causes]))
            found += read
    return found


def read_shipped(
    path: Path,
    bad: list[BadLine],
    unused: Counter[str],
    columns: PreferenceColumns | None = None,
    name: str = "",
) -> list[Preference]:
    """The preferences of one file; a row that is none goes to `bad` with its cause.

    `source` is the row's place, behind `name`, where none is given. `unused` counts the rows in which another field
    holds something.
    """
    found = []
    for row in read_rows(path):
        try:
            if row.cause:
                raise ValueError(row.cause)
            unused.update(unread(row.fields, {*columns.model_dump().values()} if columns else READ))
            fields = _renamed(row.fields, columns) if columns else row.fields
            found.append(_preference(fields, f"{name}{path.name}:{row.place}"))
        except ValueError as error:  # pydantic's is one
            bad.append(bad_line(path, row.number, cause_of(error), row.text))
    return found


def _renamed(fields: dict[str, Any], columns: PreferenceColumns) -> dict[str, Any]:
    """The fields that domain.yaml names, under the names that are read here."""
    return {key: field_of(fields, name) for key, name in columns.model_dump().items() if name}


def _preference(fields: dict[str, Any], place: str) -> Preference:
    before, chosen, rejected = _parted(fields)
    source = fields.get("source") or place
    sources = tuple(str(one) for one in (source if isinstance(source, list) else [source]))
    if problem := next(filter(None, map(text_problem, [chosen, rejected, *(one.content for one in before)])), ""):
        raise ValueError(problem)
    return make_preference(before, chosen, rejected, sources)


def _parted(fields: dict[str, Any]) -> tuple[tuple[Message, ...], str, str]:
    """Prompt as messages, and the two answers; of two conversations the last messages answer those before."""
    prompt = _asked(fields)
    chosen, rejected = (_said(fields, name) for name in ("chosen", "rejected"))
    if not isinstance(chosen, str) and not isinstance(rejected, str):
        if not all(answer and answer[-1].role == "assistant" for answer in (chosen, rejected)):
            raise ValueError("chosen and rejected: a conversation has to end with a message of the assistant")
        before = chosen[:-1]
        if before != rejected[:-1] or (before and prompt not in ((), before, before[-1:])):
            raise ValueError("chosen and rejected: what stands before the last message has to be equal, and the prompt")
        prompt, chosen, rejected = before or prompt, chosen[-1].content, rejected[-1].content
    for name, value in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        if not (isinstance(value, str) or (name == "prompt" and value)):
            raise ValueError(f"{name}: needed is a text, or a list of messages as OpenAI writes them")
    system = optional_text(fields, "system")
    begin = (Message(role="system", content=system),) if system and prompt[0].role != "system" else ()
    return begin + prompt, str(chosen), str(rejected)


def _asked(fields: dict[str, Any]) -> tuple[Message, ...]:
    """What was asked, as far as it stands beside the answers; () where it does not."""
    name = next((name for name in ASKED if not is_absent(fields.get(name))), "")
    if not name:
        return _messages(conversation_in(fields)[1], "prompt")
    if isinstance(fields[name], list):
        return _messages(fields[name], name)
    text, beside = number_as_text(fields[name]), optional_text(fields, "input")
    if not isinstance(text, str):
        raise ValueError("prompt: needed is a text, or a list of messages as OpenAI writes them")
    return (Message(role="user", content=f"{text}\n\n{beside}" if beside else text),)


def _said(fields: dict[str, Any], name: str) -> str | tuple[Message, ...]:
    """One of the two answers: a text, or the messages that it ends."""
    value = fields.get(name)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        return _messages(value, name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: needed is a text, or a list of messages as OpenAI writes them")
    return value


def _messages(turns: Iterable[Any], name: str) -> tuple[Message, ...]:
    try:
        said = [spoken_turn(turn) for turn in turns]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return tuple(Message.model_validate({"role": role, "content": content}) for role, content in said)
