"""Triples of a knowledge graph, read from CSV, JSON lines or RDF (Turtle, N-Triples), each with where it stands.

Why: every example that Self-KV builds must lead back to the facts it says, so a triple keeps its file and line.
CSV needs a header that names the columns subject, relation and object, in any order; JSON lines need those keys.
In RDF a label (rdfs:label, in the domain's language first) is read in place of an address. Its parser keeps no lines,
so there `line` counts the statements in sorted order.

Limits: a field holds at most MAX_CHARACTERS; runs of white space in it count as one space. What is not a triple is
returned beside the triples, for the quarantine. An RDF file is read whole, up to MAX_RDF_BYTES, and one with a mistake
is refused whole: behind the mistake its statements cannot be told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.errors import FlywheelError
from tasks.core.records import BadLine, Triple
from tasks.corpus.reading.lines import bad_line, text_problem
from tasks.corpus.reading.rows import Row, read_rows, unread

if TYPE_CHECKING:
    import rdflib
    from rdflib.term import Node

    from tasks.core.domain import TripleSource

FIELDS = ("subject", "relation", "object")
MAX_CHARACTERS = 1000
MAX_RDF_BYTES = 64_000_000
RDF_FORMATS = {".ttl": "turtle", ".nt": "nt"}
ENDINGS = (".csv", ".tsv", ".jsonl", *RDF_FORMATS)


class TriplesError(FlywheelError):
    """A file of triples has a form that cannot be read."""


def read_triples(
    source: TripleSource, paths: list[Path], bad: list[BadLine], language: str = "", unused: Counter[str] | None = None
) -> Iterator[Triple]:
    """The triples of one source, in the order of its files and lines.

    Args:
        source: where they come from; `file` of a triple is "<source name>/<file name>".
        paths: .csv, .tsv, .jsonl, .ttl or .nt files.
        bad: lines that are none, with file, line and cause; added to.
        language: two letters; which one of several RDF labels is read.
        unused: "<file>: <field>" → rows in which it held something that is not read; added to.

    Raises:
        TriplesError: a file has another ending, or is RDF of more than MAX_RDF_BYTES.
        SourceError: a CSV file has no usable header.
    """
    for path in paths:
        for row in _rows(path, language):
            fields = {name.casefold(): value for name, value in row.fields.items()}
            if unused is not None:
                read = [name for name in row.fields if name.casefold() in FIELDS]
                unused.update(f"{path.name}: {name}" for name in unread(row.fields, read))
            if cause := row.cause or _problem(fields):
                bad.append(bad_line(path, row.number, cause, row.text))
                continue
            said = {name: " ".join(fields[name].split()) for name in FIELDS}
            yield Triple(**said, file=f"{source.name}/{path.name}", line=row.number)


def _rows(path: Path, language: str) -> Iterator[Row]:
    ending = path.suffix.casefold()
    if ending not in ENDINGS:
        raise TriplesError(f"{path}: triples are read from {', '.join(ENDINGS)} files; convert it to one of these")
    if ending in RDF_FORMATS:
        return _rdf_rows(path, RDF_FORMATS[ending], language)
    return read_rows(path)


def _problem(fields: dict[str, Any]) -> str:
    """Why a row is no triple; empty where it is one."""
    for name in FIELDS:
        value = fields.get(name)
        if not isinstance(value, str) or not value.strip():
            return f"{name} is missing or empty"
        if len(value) > MAX_CHARACTERS:
            return f"{name} has {len(value)} characters, more than {MAX_CHARACTERS}"
        if problem := text_problem(value):
            return f"{name}: {problem}"
    return ""


def _rdf_rows(path: Path, form: str, language: str) -> Iterator[Row]:
    """The statements of an RDF file, labels in place of addresses, the statements that give labels left out."""
    import rdflib
    from rdflib.namespace import RDFS
    from rdflib.plugins.parsers.notation3 import BadSyntax
    from rdflib.plugins.parsers.ntriples import ParseError

    if path.stat().st_size > MAX_RDF_BYTES:
        raise TriplesError(f"{path}: RDF is read up to {MAX_RDF_BYTES:,} bytes; split it, or convert it to CSV")
    graph = rdflib.Graph()
    try:
        graph.parse(data=path.read_bytes().decode("utf-8-sig"), format=form)
    except (BadSyntax, ParseError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = getattr(error, "lines", 0) + 1
        yield Row(line, cause=f"not RDF in {form} form: {' '.join(str(error).split())[:300]}")
        return
    statements = [statement for statement in graph if statement[1] != RDFS.label]
    for number, nodes in enumerate(sorted(statements, key=lambda nodes: [node.n3() for node in nodes]), start=1):
        names = [_name(graph, node, language) for node in nodes]
        yield Row(number, dict(zip(FIELDS, names, strict=True)), " ".join(node.n3() for node in nodes))


def _name(graph: rdflib.Graph, node: Node, language: str) -> str:
    """How people call a node: a literal's text, else a label, else the end of its address; empty for a blank node."""
    import rdflib
    from rdflib.namespace import RDFS

    if isinstance(node, rdflib.Literal):
        return str(node)
    labels = [label for label in graph.objects(node, RDFS.label) if isinstance(label, rdflib.Literal)]
    if labels:
        return str(min(labels, key=lambda label: (label.language != language, label.language or "", str(label))))
    if isinstance(node, rdflib.BNode):
        return ""
    return str(node).rstrip("/#").replace("#", "/").rsplit("/", 1)[-1]
