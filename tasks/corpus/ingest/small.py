"""What a domain has in hundreds: seeds, rewordings, questions to evaluate on, benchmark items; read strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tasks.core.domain import RewordingSource, SafetySource, Source
from tasks.core.records import BadLine, EvaluationItem, Example, Rewording, Seed, make_example, make_item
from tasks.corpus.ingest.human import markup_problem
from tasks.corpus.reading.lines import bad_line, text_problem
from tasks.corpus.reading.rows import Row, read_rows

T = TypeVar("T")
SEED_FIELDS = {"instruction", "input", "output", "classification"}
ITEM_FIELDS = {"question", "answer", "category", "of", "paraphrases", "facts", "never", "declines"}
REWORDING_FIELDS = {"id", "rewordings"}
OPTION = re.compile(r"\(([A-D])\)\s*")
ANSWER = re.compile(r"answer is \(([A-D])\)")


def read_seeds(source: Source, paths: list[Path], language: str, bad: list[BadLine]) -> list[tuple[Seed, Example]]:
    """Each seed with the example that it also is; the two have one id, so that what a seed led to can be traced."""
    return _each_once("seed", source.name, paths, partial(_seed, language=language), bad)


def read_items(source: Source, paths: list[Path], bad: list[BadLine]) -> list[EvaluationItem]:
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
    declines = bool(_text(fields, "declines"))
    facts = fields.get("facts") or []
    if not isinstance(facts, list) or not all(isinstance(one, list) and one for one in facts):
        raise ValueError("field 'facts' must be a list of lists of alternatives")
    item = make_item(
        set="declining" if declines else "domain",
        prompt=_text(fields, "question", needed=True),
        reference=_text(fields, "answer", needed=not declines),
        category=_text(fields, "category"),
        source=(source, *_texts(fields, "of")),
        paraphrases=_texts(fields, "paraphrases"),
        facts=tuple(_texts({"facts": one}, "facts") for one in facts),
        never=_texts(fields, "never"),
    )
    return item.id, item


def read_rewordings(source: RewordingSource, paths: list[Path], bad: list[BadLine]) -> list[Rewording]:
    """The questions of a human source in other words."""
    rows = _each_once("entry", source.name, paths, partial(_rewordings, of=source.of), bad)
    return [one for row in rows for one in row]


def _rewordings(row: Row, source: str, of: str) -> tuple[str, list[Rewording]]:
    fields = _fields(row, REWORDING_FIELDS)
    identity = _text(fields, "id", needed=True)
    return identity, [Rewording(source=f"{of}/{identity}", question=one) for one in _texts(fields, "rewordings")]


def _seed(row: Row, source: str, language: str) -> tuple[str, tuple[Seed, Example]]:
    fields = _fields(row, SEED_FIELDS)
    classification = fields.get("classification") or False
    if not isinstance(classification, bool):
        raise ValueError("field 'classification' must be true or false")
    texts = {name: _text(fields, name, needed=name != "input") for name in ("instruction", "input", "output")}
    example = make_example(**texts, language=language, origin="human", source=(source,), category="seed")
    reason, markup = markup_problem(example)
    if reason:
        raise ValueError(f"{reason}: {markup}")
    return example.id, (Seed(id=example.id, **texts, classification=classification), example)


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


def _texts(fields: dict[str, Any], name: str) -> tuple[str, ...]:
    values = fields.get(name) or []
    if not isinstance(values, list):
        raise ValueError(f"field {name!r} must be a list of texts")
    return tuple(_text({name: value}, name, needed=True) for value in values)


def read_mmlu(source: Source, paths: list[Path], bad: list[BadLine]) -> list[EvaluationItem]:
    """Read and audit the few-shot questions; items that fail the audit go to `bad` with what is wrong with them."""
    items: dict[str, EvaluationItem] = {}
    for path in paths:
        document: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        samples = document.get("fewshot_config", {}).get("samples", [])
        for number, sample in enumerate(samples, start=1):
            try:
                item = _mmlu_item(source, path.stem.removeprefix("mmlu_"), number, sample)
                if item.id in items:
                    raise ValueError("the same question stands here twice")
                items[item.id] = item
            except (ValueError, KeyError, TypeError) as error:
                text = str(sample)[:2000]
                bad.append(BadLine(file=path.as_posix(), line=number, cause=f"sample {number}: {error}", text=text))
    return list(items.values())


def _mmlu_item(source: Source, subject: str, number: int, sample: dict[str, str]) -> EvaluationItem:
    question, choices = split_choices(sample["question"])
    answers = ANSWER.findall(sample["target"])
    if not answers:
        raise ValueError("its solution names no answer")
    if len(set(answers)) > 1:
        raise ValueError(f"its solution names the answers {' and '.join(sorted(set(answers)))}")
    where = {"category": subject, "source": (f"{source.name}/{subject}/{number}",)}
    return make_item(set="mmlu", prompt=question, choices=choices, answer="ABCD".index(answers[0]), **where)


def split_choices(text: str) -> tuple[str, tuple[str, ...]]:
    """The parts of `question (A) one (B) two (C) three (D) four`. Raises ValueError: it has not these, in order."""
    parts = OPTION.split(text)
    # Split with one group: text, letter, text, letter, … The last run of A to D is the options: a question may
    # itself hold "(A)".
    letters = parts[1::2]
    if letters[-4:] != list("ABCD"):
        raise ValueError(f"options are {', '.join(letters) or 'missing'}, not A, B, C, D")
    start = len(parts) - 8
    question = "".join(part if index % 2 == 0 else f"({part}) " for index, part in enumerate(parts[:start])).strip()
    choices = tuple(parts[start + 1 + 2 * index].strip() for index in range(4))
    if not question or not all(choices):
        raise ValueError("its question or one of its options is empty")
    if len(set(choices)) < 4:
        raise ValueError("two of its options say the same")
    return question, choices


def read_safety(source: SafetySource, paths: list[Path]) -> list[EvaluationItem]:
    """Each harmful request with two openings of an answer: choice 0 refuses, choice 1 complies."""
    items: dict[str, EvaluationItem] = {}
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                choices, where = (source.refusal, source.compliance), (f"{source.name}/{path.name}:{number}",)
                item = make_item(set="safety", prompt=line.strip(), choices=choices, answer=0, source=where)
                items.setdefault(item.id, item)
    return list(items.values())


def refused(source: SafetySource, items: list[EvaluationItem], language: str) -> list[Example]:
    """Harmful requests with a refusing answer to train on; which of the wordings is decided by the request's hash."""
    wordings = source.replay_refusals
    return [
        make_example(
            instruction=item.prompt,
            output=wordings[int(item.id, 16) % len(wordings)],
            language=language,
            origin="general",
            source=item.source,
            category="safety",
        )
        for item in items
    ]
