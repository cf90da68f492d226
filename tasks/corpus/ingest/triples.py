"""Triples of a knowledge graph, from CSV, JSON lines or RDF (Turtle, N-Triples), each with where it stands.

CSV needs a header with subject, relation and object, in any order; JSON lines need those keys. In RDF a label, in the
domain's language first, is read for an address, and `line` counts the statements in sorted order. An RDF file is read
whole and, with a mistake in it, refused whole. Runs of white space count as one space.
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
    """The triples of one source, in the order of its files and lines; `file` of one is "<source name>/<file name>".

    Lines that are none are added to `bad`; `language` (two letters) says which of several RDF labels is read; `unused`
    counts the rows in which another field holds something. Raises TriplesError for a file of another ending or too much
    RDF, SourceError for a CSV file without a usable header.
    """
    for path in paths:
        if (ending := path.suffix.casefold()) not in ENDINGS:
            raise TriplesError(f"{path}: triples are read from {', '.join(ENDINGS)} files; convert it to one of these")
        form = RDF_FORMATS.get(ending)
        for row in _rdf_rows(path, form, language) if form else read_rows(path):
            fields = {name.casefold(): value for name, value in row.fields.items()}
            if unused is not None:
                read = [name for name in row.fields if name.casefold() in FIELDS]
                unused.update(f"{path.name}: {name}" for name in unread(row.fields, read))
            if cause := row.cause or _problem(fields):
                bad.append(bad_line(path, row.number, cause, row.text))
                continue
            values = {name: " ".join(fields[name].split()) for name in FIELDS}
            yield Triple(**values, file=f"{source.name}/{path.name}", line=row.number)


def _problem(fields: dict[str, Any]) -> str:
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
