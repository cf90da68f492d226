"""The records that flow through the pipeline, and how they are read and written.

Reading is strict: a line that is no record is reported with file, line and cause, for the caller to quarantine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, write_text

# Decimals kept of every value that is measured: far below any margin, above the noise of summing in another order.
DECIMALS = 6

Origin = Literal["human", "self_instruct", "self_qa", "self_kv", "general", "feedback"]


class Record(BaseModel):
    """Base of all records: unknown fields are an error, values do not change after construction."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(Record):
    """One earlier exchange of a conversation."""

    user: str
    assistant: str


class Passage(Record):
    """What an answer may rest on: a text, the question it answers where there is one, and where it comes from.

    `source` is "<source>/<entry>", "<document>#<start>-<end>" (a span of characters), "<file>:<line>" of a triple, or
    the feedback that a correction was.
    """

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    kind: Literal["document", "question", "triple", "correction"]
    question: str = ""
    text: str
    source: str

    @property
    def whole(self) -> str:
        """The question it answers, if any, and the text: what is searched and what a model reads."""
        return f"{self.question} {self.text}" if self.question else self.text


def make_passage(**fields: Any) -> Passage:
    """A Passage whose id is the hash of all that it is."""
    content = [fields.get(key, "") for key in ("kind", "question", "text", "source")]
    return Passage(id=digest_of(content), **fields)


class Rewording(Record):
    """The question of a human example in other words; `source` is that of the example."""

    source: str
    question: str = Field(min_length=1)


class Example(Record):
    """One instruction with its answer: Alpaca's fields, plus where it comes from.

    `passages` are those that it is answered from, in the order of their numbers; () where it is answered without any
    because none was found, None where nothing was looked up.
    """

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    instruction: str
    input: str = ""
    output: str
    system: str = ""
    history: tuple[Turn, ...] = ()
    language: str
    origin: Origin
    source: tuple[str, ...]
    category: str = ""
    evidence: str = ""  # the passage or triples that the answer has to follow from, where there is one
    passages: tuple[Passage, ...] | None = None
    framed: str = ""  # the user's turn with its passages, where a domain's own words stand around them

    @property
    def prompt(self) -> str:
        """What the user says: the instruction, with its input below it where there is one."""
        return f"{self.instruction}\n\n{self.input}" if self.input else self.instruction


def make_example(*, instruction: str, output: str, **fields: Any) -> Example:
    """An Example whose id is the hash of its content (instruction, input, output, system, history)."""
    history = fields.get("history", ())
    content = {
        "instruction": instruction,
        "input": fields.get("input", ""),
        "output": output,
        "system": fields.get("system", ""),
        "history": [[turn.user, turn.assistant] for turn in history],
    }
    return Example(id=digest_of(content), instruction=instruction, output=output, **fields)


class Seed(Record):
    """A seed instruction; its id is that of the example it also is. `classification`: a label begins its answer."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    instruction: str
    input: str = ""
    output: str
    classification: bool = False


class Document(Record):
    """A document's text as its parser gave it; spans of characters count in `text`.

    `name` is where it comes from, "<source>/<file>" (or "<source>/<file>/<row id>"), `sha256` that of the whole file.
    """

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str
    title: str = ""
    text: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Triple(Record):
    """One edge of a knowledge graph. `file` is "<source>/<file>", `line` its place there, counted from 1."""

    subject: str
    relation: str
    object: str
    file: str
    line: int = Field(ge=1)


class Message(Record):
    """One message of a conversation, as in the OpenAI API."""

    role: Literal["system", "user", "assistant"]
    content: str


class Preference(Record):
    """Of two answers to one prompt, the one a person chose."""

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    source: tuple[str, ...]


def make_preference(prompt: tuple[Message, ...], chosen: str, rejected: str, source: tuple[str, ...]) -> Preference:
    """A Preference whose id is the hash of its content."""
    content = [[message.model_dump() for message in prompt], chosen, rejected]
    return Preference(id=digest_of(content), prompt=prompt, chosen=chosen, rejected=rejected, source=source)


class Reaction(Record):
    """One reaction to one served answer, as a snapshot of the database keeps it. `night` is when it was claimed."""

    seq: int
    id: str
    night: int
    identity: str
    kind: Literal["thumb", "rating", "correction", "comment", "choice"]
    thumb: Literal[-1, 1] | None = None
    rating: int | None = Field(default=None, ge=1, le=5)
    text: str = ""
    # Left out where there are none: a snapshot of the same rows keeps the digest that it had before there were any.
    other_words: str = Field(default="", exclude_if=lambda words: not words)
    answer_id: str
    messages: tuple[Message, ...]
    answer: str
    version: str
    digest: str
    draft: str = ""  # the pair of drafts it belongs to
    other_answer: str = ""  # of that pair: the one that was not chosen
    finish_reason: str = "stop"  # of the answer, and of the other one: stop, length or cancelled
    other_finish_reason: str = "stop"


class EvaluationItem(Record):
    """One frozen test item. Free-text items have a reference; choice items have choices and the right one's index.

    `facts` are what a right answer says, each a list of alternatives, and `never` what it does not say
    (evaluate/scoring/facts.py). Items of the set `declining` have no answer: the material does not hold it, or the
    question is foreign. `paraphrases` are other wordings of the prompt. `system` and `history` are those it is asked
    under; without a system text the domain's own stands.
    """

    id: str = Field(pattern=r"^[0-9a-f]{64}$")
    set: Literal["domain", "declining", "dialogue", "mmlu", "safety", "feedback", "kept"]
    prompt: str = Field(min_length=1)
    reference: str = ""
    choices: tuple[str, ...] = ()
    answer: int | None = None
    category: str = ""
    source: tuple[str, ...] = ()
    system: str = ""
    history: tuple[Turn, ...] = ()
    paraphrases: tuple[str, ...] = ()
    facts: tuple[tuple[str, ...], ...] = ()
    never: tuple[str, ...] = ()

    @property
    def whole(self) -> str:
        """The question with its right answer."""
        answer = self.choices[self.answer or 0] if self.choices else self.reference
        return f"{self.prompt}\n{answer}".strip()

    @model_validator(mode="after")
    def _one_kind(self) -> EvaluationItem:
        if self.set == "declining" and (self.reference or self.choices or self.facts):
            raise ValueError("an item that has no answer has neither a reference nor choices nor facts")
        if self.set != "declining" and bool(self.reference) == bool(self.choices):
            raise ValueError("an item has either a reference or choices")
        if self.choices and (self.answer is None or not 0 <= self.answer < len(self.choices)):
            raise ValueError("answer must be the index of one of the choices")
        return self


def make_item(**fields: Any) -> EvaluationItem:
    """An EvaluationItem whose id is the hash of what is asked and what is right."""
    content = [fields.get(key) for key in ("set", "prompt", "reference", "choices", "answer")]
    content += [fields["system"]] if fields.get("system") else []
    content += [[turn.model_dump() for turn in fields["history"]]] if fields.get("history") else []
    return EvaluationItem(id=digest_of(content), **fields)


class Score(Record):
    """One measured value of one item. `tokens` is the number of answer tokens a mean was taken over."""

    id: str
    set: str
    metric: str
    value: float = Field(allow_inf_nan=False)
    tokens: int | None = None


class Receipt(Record):
    """What one stage did with one example, and why."""

    example_id: str
    stage: str
    kept: bool
    reason: str
    detail: str = ""
    score: float | None = None


class BadLine(Record):
    """A line that could not be read, for the quarantine."""

    file: str
    line: int
    cause: str
    text: str


class Dropped(Record):
    """A candidate example that a method of construction did not keep, for the quarantine; `score` as in Receipt."""

    id: str
    origin: Origin
    instruction: str
    input: str = ""
    output: str = ""
    source: tuple[str, ...] = ()
    evidence: str = ""
    reason: str
    detail: str = ""
    score: float | None = None


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_jsonl(path: Path, kind: type[AnyRecord]) -> tuple[list[AnyRecord], list[BadLine]]:
    """Read records of one kind; lines that are not one are returned beside them, with file, line and cause."""
    records: list[AnyRecord] = []
    bad: list[BadLine] = []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            records.append(kind.model_validate_json(raw.decode("utf-8")))
        except (UnicodeDecodeError, ValidationError) as error:
            text = raw[:2000].decode("utf-8", errors="replace")
            bad.append(BadLine(file=path.as_posix(), line=number, cause=cause_of(error), text=text))
    return records, bad


class RecordError(FlywheelError):
    """A file that an earlier stage wrote is missing or damaged."""


def read_own_jsonl(path: Path, kind: type[AnyRecord]) -> list[AnyRecord]:
    """Read records that an earlier stage wrote; raises RecordError where the file is missing or a line is bad."""
    try:
        records, bad = read_jsonl(path, kind)
    except FileNotFoundError:
        raise RecordError(f"{path} is missing; run the stage that writes it: dvc repro") from None
    if bad:
        raise RecordError(f"{bad[0].file}:{bad[0].line}: {bad[0].cause} ({len(bad)} bad lines); run dvc repro")
    return records


def read_committed(path: Path, kind: type[AnyRecord], refusal: type[FlywheelError]) -> AnyRecord:
    """The one record of a committed JSON file, such as a pointer; raises `refusal` where it is missing or malformed."""
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise refusal(f"{path} is missing; `git checkout -- {path}` brings it back") from None
    except ValidationError as error:
        raise refusal(f"{path}: {'; '.join(item['msg'] for item in error.errors())}") from None


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    """Write records one a line, keys in the order of their definition, whole or not at all."""
    lines = (json.dumps(record.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) for record in records)
    write_text(path, "".join(line + "\n" for line in lines))


def cause_of(error: ValueError) -> str:
    """Why a line is no record, in words."""
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'line'}: {item['msg']}" for item in error.errors())
    return str(error)
