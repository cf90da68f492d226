"""What a folder of an organisation's own material holds: documents, tables of questions and answers, a language.

Nothing is asked that can be found out: which column of a table is the question and which the answer is told by its
name (tasks/corpus/reading/columns.py), else by its content: the column most of whose texts end in a question mark,
and of the others the one with the longest texts. What is not used is named with the reason.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.core.domain import COLUMNAR, Columns, HumanSource, Source
from tasks.core.records import BadLine
from tasks.corpus.ingest.documents import DOCUMENT_FIELDS, ENDINGS, read_documents
from tasks.corpus.ingest.human import human_rows
from tasks.corpus.ingest.triples import RDF_FORMATS
from tasks.corpus.reading.columns import heading, is_wrong, known_as, named
from tasks.corpus.reading.conversations import CONVERSATIONS
from tasks.corpus.reading.lines import bad_line, by_cause, encoding_of
from tasks.corpus.reading.rows import ENDINGS as TABLES
from tasks.corpus.reading.rows import SourceError, read_rows, unread

ABOUT_ROWS = ("dataset_info.json", "state.json", "dataset_dict.json")  # of a datasets folder
BINARY = (".xlsx", *COLUMNAR)
SAMPLE_ROWS = 200
SAMPLE_CHARACTERS = 5000
ASKS = 0.5  # share of a column's texts that end in a question mark, from which it is the question
CHOICE = re.compile(
    r"[a-h1-9x]|op[a-d]|(option|choice|answer|svar|antwort|alternative?|选项|答案) ?[a-h1-9]"
    r"|options|choices|alternatives|endings|选项"
)
# Of options: B, (b), A, C, 1,3 and Option 2.
LETTERS = re.compile(r"\W*((?i:option|choice|answer|alternativ|选项)\W*)?([A-H]{1,8}|[a-hXx\d])(\W+[A-Ha-hXx\d])*\W*")
TRIPLES = (
    "a knowledge graph, no answers: put the file (a table has the columns subject, relation, object) into "
    "domains/<name> and name it under `triples` of domain.yaml, with templates (docs/domains.md)"
)
DOCUMENTS = Source(name="folder", files=["*"], licence="-", attribution="-")


@dataclass
class Use:
    """What is used of a file, and what not.

    A table without columns is Alpaca or ShareGPT and needs none. `unused` counts the rows in which a field holds
    something that nobody reads, `causes` are sentences about rows that cannot be used, `encoding` is named where it is
    not UTF-8.
    """

    rows: int  # or documents
    columns: Columns | None = None
    unused: Counter[str] = field(default_factory=Counter)
    causes: list[str] = field(default_factory=list)
    encoding: str = ""


@dataclass
class Found:
    """What lies in a folder; for each file that cannot be used the reason."""

    documents: dict[Path, Use] = field(default_factory=dict)
    tables: dict[Path, Use] = field(default_factory=dict)
    unused: dict[Path, str] = field(default_factory=dict)


def look(folder: Path) -> Found:
    """Every file of a folder and its subfolders, hidden ones left out, by what it can be used for."""
    found = Found()
    for path in sorted(folder.rglob("*")):
        if any(part.startswith((".", "~")) for part in path.relative_to(folder).parts):
            continue
        ending = path.suffix.casefold()
        try:
            if not path.is_file():
                continue
            if path.stat().st_size == 0:
                found.unused[path] = "empty"
            elif path.name in ABOUT_ROWS:
                found.unused[path] = "tells about a datasets folder, whose rows lie beside it"
            elif ending in TABLES and not _is_documents(path):
                found.tables[path] = _table(path)
            elif ending in ENDINGS:
                found.documents[path] = _document(path)
            elif ending in RDF_FORMATS:
                found.unused[path] = TRIPLES
            else:
                found.unused[path] = f"no reader for {ending or 'a file without an ending'}"
        except (SourceError, OSError) as error:
            found.unused[path] = str(error).removeprefix(f"{path}: ")
    return found


def _table(path: Path) -> Use:
    """What can be used of a table of questions and answers."""
    columns = columns_in(path)
    use, bad, unused = Use(0, columns), list[BadLine](), Counter[str]()
    source = HumanSource(name="folder", files=["*"], columns=columns, advertising=[], licence="-", attribution="-")
    with contextlib.suppress(SourceError):  # none of its rows can be read: the causes follow
        use.rows = sum(receipt.kept for _, receipt in human_rows(source, [path], "en", bad, unused))
    use.unused = Counter({name.removeprefix(f"{path.name}: "): rows for name, rows in unused.items()})
    use.causes = by_cause(bad)
    if path.suffix.casefold() not in BINARY and (encoding := encoding_of(path)) != "utf-8-sig":
        use.encoding = encoding
    if not use.rows:
        raise SourceError("\n    ".join([f"{path}: no row can be used", *use.causes]))
    return use


def columns_in(path: Path) -> Columns | None:
    """The columns of a table of questions and answers; None where its form (Alpaca, ShareGPT) needs none.

    Raises:
        SourceError: there is no question or no answer to be found, or not one row.
    """
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    bad: list[BadLine] = []
    for row in read_rows(path):  # all of them: a field may come in a late row only
        if row.cause:
            bad.append(bad_line(path, row.number, row.cause, row.text))
            continue
        names |= dict.fromkeys(row.fields)
        if len(rows) < SAMPLE_ROWS:
            rows.append(row.fields)
    if not rows:
        raise SourceError("\n    ".join([f"{path}: no row can be read", *by_cause(bad)]))
    if {"chosen", "rejected"} <= {*map(heading, names)} and "answer" not in named(names):
        raise SourceError(
            f"{path}: preferences, no answers: `rejected` is not to be learnt; put the file "
            "into domains/<name> and name it under `preferences` of domain.yaml (docs/alignment.md)"
        )
    if {"subject", "object"} <= {*map(heading, names)} and "answer" not in named(names):
        raise SourceError(f"{path}: {TRIPLES}")
    if {"instruction", "output"} <= names.keys() or names.keys() & {*CONVERSATIONS}:
        return None
    return guess_columns(rows, list(names))


def guess_columns(rows: Sequence[dict[str, Any]], names: Sequence[str] = ()) -> Columns:
    """Which column holds what; `names` are those of all rows, where these are some of them.

    Raises:
        SourceError: no two columns are a question and its answer, several may be the answer, or they are those of a
            multiple-choice test.
    """
    names = names or list(dict.fromkeys(name for row in rows for name in row))
    texts = {name: [_shown(row.get(name)) for row in rows] for name in names}
    found = named(texts)
    question = found.get("question") or _asking(texts)
    if choices := [name for name in texts if name != question and CHOICE.fullmatch(heading(name))]:
        _refuse_choices(choices, texts, rows, found.get("answer", ""))
    first = found.get("answer", "")
    alike = [n for n in texts if known_as(n) == known_as(first) and (n == first or not re.search(r" #\d+$", n))]
    if first and len(alike) > 1:
        raise SourceError(f"the answer may stand in {' or '.join(alike)}; rename the right one to `answer`")
    rest = {n: column for n, column in texts.items() if n not in (question, *found.values()) and not is_wrong(n)}
    answer = found.get("answer") or max(rest, key=lambda name: sum(map(len, rest[name])), default="")
    if not question or not answer:
        raise SourceError(
            f"no column of questions and one of answers found among {', '.join(texts) or 'none'}; "
            "rename them to `question` and `answer`"
        )
    columns = {"question": question, "answer": answer}
    for key in ("input", "system", "history", "category", "sources", "id"):
        name = found.get(key, "")
        filled = [text for text in texts.get(name, []) if text]
        if (key == "id" and len(set(filled)) < len(filled)) or (key == "history" and not _has_lists(rows, name)):
            continue
        if filled:
            columns[key] = name
    return Columns.model_validate(columns)


def _shown(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _has_lists(rows: Sequence[dict[str, Any]], name: str) -> bool:
    return any(isinstance(row.get(name), list | dict) for row in rows)


def _refuse_choices(choices: list[str], texts: dict[str, list[str]], rows: Sequence[Any], answer: str) -> None:
    """Refuse a multiple-choice test: options beside each other, and an answer that is none or names one of them."""
    several = len(choices) >= 3 or any(_has_lists(rows, name) for name in choices)
    letters = all(LETTERS.fullmatch(text) for text in texts.get(answer, []) if text)
    if (several and answer in choices) or ((several or len(choices) == 2) and letters):
        raise SourceError(
            f"a multiple-choice test ({', '.join(choices)}), whose answers are letters or numbers of options; "
            "put the text of the right option into a column `answer`"
        )


def language_of(texts: Sequence[str]) -> str:
    """The ISO 639-1 code of the language most of the texts are in, told offline by lingua.

    Raises:
        SourceError: it cannot be told.
    """
    from lingua import LanguageDetectorBuilder

    detector = LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
    found = detector.detect_language_of("\n".join(texts)[:SAMPLE_CHARACTERS])
    if found is None:
        raise SourceError("the language of the material cannot be told; there may be too little text")
    return found.iso_code_639_1.name.lower()


def texts_of(found: Found) -> list[str]:
    """Some of the material, for its language to be told: rows of the tables, beginnings of the documents."""
    texts = []
    for path, use in found.tables.items():
        columns = use.columns
        for row in _sample(path, 20):
            values = [row.get(columns.question), row.get(columns.answer)] if columns else [*row.values()]
            texts.append("\n".join(str(value) for value in values))
    for path in islice(found.documents, 5):
        texts += [document.text[:500] for document in islice(read_documents(DOCUMENTS, [path], []), 3)]
    return texts


def _asking(texts: dict[str, list[str]]) -> str:
    def share(name: str) -> float:
        column = texts[name]
        return sum(text.endswith(("?", "？")) for text in column) / max(len(column), 1)

    best = max(texts, key=share, default="")
    return best if best and share(best) >= ASKS else ""


def _document(path: Path) -> Use:
    """What can be used of a file of documents."""
    bad: list[BadLine] = []
    count = sum(1 for _ in read_documents(DOCUMENTS, [path], bad))
    if not count:
        raise SourceError(bad[0].cause if bad else "it holds no document")
    use = Use(count, causes=by_cause(bad))
    for row in read_rows(path) if path.suffix.casefold() == ".jsonl" else ():
        use.unused.update(unread(row.fields, DOCUMENT_FIELDS))
    return use


def _is_documents(path: Path) -> bool:
    """Whether a JSON-lines file holds documents: rows with a text, and neither a question nor an answer."""
    first = next(iter(_sample(path, 1)), {}) if path.suffix.casefold() == ".jsonl" else {}
    return "text" in first and not {"question", "answer"} & named(first).keys()


def _sample(path: Path, rows: int) -> list[dict[str, Any]]:
    return list(islice((row.fields for row in read_rows(path) if not row.cause), rows))
