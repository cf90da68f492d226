"""What a folder of an organisation's own material holds: documents, tables of questions and answers, a language.

Nothing is asked that can be found out: which column of a table is the question and which the answer is told by its
name, in the languages below, else by its content: the column most of whose texts end in a question mark, and of the
others the one with the longest texts. What is not used is named with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tasks.corpus.documents import ENDINGS, read_documents
from tasks.corpus.rows import SourceError, read_rows
from tasks.domain import Columns, DocumentSource

TABLES = (".csv", ".tsv", ".xlsx", ".jsonl", ".json")
SAMPLE_ROWS = 200
SAMPLE_CHARACTERS = 5000
ASKS = 0.5  # share of a column's texts that end in a question mark, from which it is the question
NAMES = {
    "question": ("question", "q", "prompt", "instruction", "ask", "fråga", "fraga", "frage", "pregunta")
    + ("问题", "问", "提问"),
    "answer": ("answer", "a", "response", "output", "reply", "completion", "svar", "antwort", "réponse", "respuesta")
    + ("答案", "回答", "答", "答复"),
    "category": ("category", "topic", "subject", "tag", "kategori", "ämne", "kategorie", "thema")
    + ("类别", "分类", "主题"),
    "sources": ("sources", "source", "reference", "references", "källa", "källor", "quelle", "来源", "出处", "依据"),
    "id": ("id", "nr", "no", "number", "编号", "序号"),
}


@dataclass
class Found:
    """What lies in a folder; a table without columns is Alpaca or ShareGPT and needs none."""

    documents: list[Path] = field(default_factory=list)
    tables: dict[Path, Columns | None] = field(default_factory=dict)
    unused: dict[Path, str] = field(default_factory=dict)


def look(folder: Path) -> Found:
    """Every file of a folder and its subfolders, hidden ones left out, by what it can be used for."""
    found = Found()
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith((".", "~")) for part in path.relative_to(folder).parts):
            continue
        ending = path.suffix.casefold()
        try:
            if path.stat().st_size == 0:
                found.unused[path] = "empty"
            elif ending in TABLES and not _is_documents(path):
                found.tables[path] = columns_in(path)
            elif ending in ENDINGS:
                found.documents.append(path)
            else:
                found.unused[path] = f"no reader for {ending or 'a file without an ending'}"
        except SourceError as error:
            found.unused[path] = str(error).removeprefix(f"{path}: ")
    return found


def columns_in(path: Path) -> Columns | None:
    """The columns of a table of questions and answers; None where its form (Alpaca, ShareGPT) needs none.

    Raises:
        SourceError: there is no question or no answer to be found.
    """
    rows = _sample(path)
    keys = set(rows[0]) if rows else set()
    if {"instruction", "output"} <= keys or keys & {"conversations", "messages"}:
        return None
    return guess_columns(rows)


def guess_columns(rows: Sequence[dict[str, Any]]) -> Columns:
    """Which column holds what.

    Raises:
        SourceError: no two columns are a question and its answer.
    """
    texts = {name: [str(row.get(name) or "").strip() for row in rows] for name in (rows[0] if rows else {})}
    named = {key: next((n for n in texts if n.casefold().strip() in known), "") for key, known in NAMES.items()}
    question = named["question"] or _asking(texts)
    rest = {name: column for name, column in texts.items() if name not in (question, *named.values())}
    answer = named["answer"] or max(rest, key=lambda name: sum(map(len, rest[name])), default="")
    if not question or not answer:
        raise SourceError(f"no column of questions and one of answers found among {', '.join(texts) or 'none'}")
    columns = {"question": question, "answer": answer}
    for key in ("category", "sources", "id"):
        column = texts.get(named[key], [])
        unique = key != "id" or len(set(column)) == len(column)
        if column and unique and (all(column) or key == "sources"):
            columns[key] = named[key]
    return Columns.model_validate(columns)


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
    for path, columns in found.tables.items():
        for row in _sample(path, 20):
            values = [row.get(columns.question), row.get(columns.answer)] if columns else [*row.values()]
            texts.append("\n".join(str(value) for value in values))
    source = DocumentSource(name="folder", files=["*"], licence="-", attribution="-")
    for path in found.documents[:5]:
        texts += [document.text[:500] for document in islice(read_documents(source, [path])[0], 3)]
    return texts


def _asking(texts: dict[str, list[str]]) -> str:
    def share(name: str) -> float:
        column = texts[name]
        return sum(text.endswith(("?", "？")) for text in column) / max(len(column), 1)

    best = max(texts, key=share, default="")
    return best if best and share(best) >= ASKS else ""


def _is_documents(path: Path) -> bool:
    """Whether a JSON-lines file holds documents: rows with a text and no question."""
    return path.suffix.casefold() == ".jsonl" and any("text" in row for row in _sample(path, 1))


def _sample(path: Path, rows: int = SAMPLE_ROWS) -> list[dict[str, Any]]:
    return list(islice(_readable(path), rows))


def _readable(path: Path) -> Iterator[dict[str, Any]]:
    return (row.fields for row in read_rows(path) if not row.cause)
