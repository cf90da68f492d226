"""Triples: three forms, one meaning; a bad line costs only itself."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.domain import TripleSource
from tasks.core.records import BadLine, Triple
from tasks.corpus.ingest.triples import TriplesError, read_triples

HEADER = b"subject,relation,object\n"


def a_source() -> TripleSource:
    fields = {"name": "graph", "files": ["g"], "templates": "t.yaml", "licence": "MIT", "attribution": "us"}
    return TripleSource.model_validate(fields)


def read(path: Path, content: bytes, language: str = "") -> tuple[list[Triple], list[BadLine]]:
    path.write_bytes(content)
    bad: list[BadLine] = []
    return list(read_triples(a_source(), [path], bad, language)), bad


def said(triples: list[Triple]) -> list[tuple[str, str, str, int]]:
    return [(t.subject, t.relation, t.object, t.line) for t in triples]


def test_a_csv_names_its_columns_in_any_order_and_what_else_it_holds_is_counted(tmp_path: Path) -> None:
    path, unused = tmp_path / "g.csv", Counter[str]()
    path.write_text('Object,Year,SUBJECT,relation\n国务院,1999,公路法,制定机关\n" b\n  c ",,a,is\nd,2004,c,is\n')
    found = list(read_triples(a_source(), [path], [], unused=unused))
    assert said(found) == [("公路法", "制定机关", "国务院", 2), ("a", "is", "b c", 3), ("c", "is", "d", 5)]
    assert (found[0].file, unused) == ("graph/g.csv", {"g.csv: Year": 2})


@pytest.mark.parametrize(
    "line, cause",
    [
        (b"a,is,\n", "object is missing or empty"),
        (b"a,\xff,b\n", "relation: not UTF-8"),
        (b"a,is,\x00b\n", "object: the control character U+0000"),
        (b"a,is," + b"b" * 1001 + b"\n", "object has 1001 characters, more than 1000"),
    ],
)
def test_a_bad_line_of_a_csv_is_named_and_the_lines_around_it_are_read(tmp_path: Path, line: bytes, cause: str) -> None:
    found, bad = read(tmp_path / "g.csv", HEADER + b"a,is,b\n" + line + b"c,is,d\n")
    assert said(found) == [("a", "is", "b", 2), ("c", "is", "d", 4)]
    assert [(b.line, b.cause) for b in bad] == [(3, cause)]


def test_a_csv_that_names_other_columns_gives_no_triple(tmp_path: Path) -> None:
    found, bad = read(tmp_path / "g.csv", b"subject,object\na,b\n")
    assert (found, [(b.line, b.cause) for b in bad]) == ([], [(2, "relation is missing or empty")])
    found, bad = read(tmp_path / "g.csv", b"subject,relation,object,object\na,is,b,c\n")
    assert (found, [b.cause for b in bad]) == ([], ["object is missing or empty"]), "two are called object #1 and #2"


def test_json_lines_hold_objects_with_the_three_keys(tmp_path: Path) -> None:
    rows = [b'{"subject": "a", "relation": "is", "object": "b", "year": 1}', b"", b"[1]", b"{", b'{"subject": 1}']
    found, bad = read(tmp_path / "g.jsonl", b"\n".join(rows))
    assert said(found) == [("a", "is", "b", 1)]
    assert [b.line for b in bad] == [3, 4, 5]
    assert [b.cause[:30] for b in bad] == [
        "a row must be an object, not l",
        "Expecting property name enclos",
        "subject is missing or empty",
    ]


TURTLE = """
@prefix e: <http://example.org/terms#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
e:law rdfs:label "Road Act"@en, "公路法"@zh .
e:issuedBy rdfs:label "制定机关"@zh .
e:law e:issuedBy e:Council ; e:year 1997 .
_:nobody e:issuedBy e:Council .
"""


def test_turtle_is_read_by_its_labels_in_the_domain_s_language(tmp_path: Path) -> None:
    found, bad = read(tmp_path / "g.ttl", TURTLE.encode(), "zh")
    facts = {(t.subject, t.relation, t.object) for t in found}
    assert facts == {("公路法", "制定机关", "Council"), ("公路法", "year", "1997")}
    assert [b.cause for b in bad] == ["subject is missing or empty"]  # a blank node has no name
    english, _ = read(tmp_path / "g.ttl", TURTLE.encode(), "en")
    assert {t.subject for t in english} == {"Road Act"}


def test_statements_of_rdf_are_numbered_the_same_however_they_are_written(tmp_path: Path) -> None:
    one = b"<http://e.org/a> <http://e.org/is> <http://e.org/b> .\n"
    two = b"<http://e.org/c> <http://e.org/is> <http://e.org/d> .\n"
    forth, _ = read(tmp_path / "g.nt", one + two)
    back, _ = read(tmp_path / "g.nt", two + one)
    assert said(forth) == said(back) == [("a", "is", "b", 1), ("c", "is", "d", 2)]


@pytest.mark.parametrize("ending", ["ttl", "nt"])
def test_broken_rdf_is_refused_whole_with_its_cause(tmp_path: Path, ending: str) -> None:
    found, bad = read(tmp_path / f"g.{ending}", b"<http://e.org/a> <http://e.org/is> .\nthis is nothing\n")
    assert found == []
    assert len(bad) == 1
    assert bad[0].cause.startswith("not RDF in ")


def test_another_form_of_file_is_an_error_that_says_what_is_read(tmp_path: Path) -> None:
    with pytest.raises(TriplesError, match=r"g\.xml: triples are read from \.csv, .*convert it"):
        read(tmp_path / "g.xml", b"<a/>")


WORD = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]), min_size=1, max_size=8)
ROWS = st.lists(st.tuples(WORD, WORD, WORD), max_size=6)


@given(rows=ROWS)
def test_what_is_written_is_read_whatever_the_script(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    folder = tmp_path_factory.mktemp("g")
    table = io.StringIO()
    csv.writer(table).writerows([("subject", "relation", "object"), *rows])
    lines = [json.dumps(dict(zip(("subject", "relation", "object"), row, strict=True))) for row in rows]
    (folder / "a.csv").write_bytes(table.getvalue().encode())
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for name in ("a.csv", "a.jsonl"):
        bad: list[BadLine] = []
        found = read_triples(a_source(), [folder / name], bad)
        assert [(t.subject, t.relation, t.object) for t in found] == rows
        assert bad == []


@given(content=st.binary(max_size=300), ending=st.sampled_from(["csv", "jsonl"]))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes, ending: str) -> None:
    found, bad = read(tmp_path_factory.mktemp("g") / f"a.{ending}", HEADER + content)
    assert all(line >= 1 for line in [*(t.line for t in found), *(b.line for b in bad)])
