"""Human Q&A: read strictly, advertising left out, every row accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.corpus.human import read_human, strip_advertising
from tasks.domain import HumanSource


def source(**fields: Any) -> HumanSource:
    columns = {"question": "q", "answer": "a", "category": "meta.topic", "sources": "refs"}
    given = {"name": "faq", "files": ["x"], "columns": columns, "licence": "x", "attribution": "x"} | fields
    return HumanSource.model_validate(given)


def row(q: Any = "Q?", a: Any = "A.", topic: Any = "roofs", refs: Any = ("Law 1",)) -> dict[str, Any]:
    return {"q": q, "a": a, "meta": {"topic": topic}, "refs": list(refs)}


@pytest.mark.parametrize(
    "answer, kept",
    [
        ("Ten weeks. Acme AB helps you! Twenty at most.", "Ten weeks. Twenty at most."),
        ("No adverts here.", "No adverts here."),
        ("Ask ACME.", ""),
        ("需要十周。Acme公司可以帮助您！最多二十周。", "需要十周。最多二十周。"),
    ],
)
def test_sentences_that_name_the_publisher_are_left_out(answer: str, kept: str) -> None:
    assert strip_advertising(answer, ["Acme"]) == kept


def test_a_row_that_is_only_advertising_has_a_receipt_and_is_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "faq.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in (row(), row(a="Call Acme!"), row(q="Is Acme good?"))))
    examples, receipts, bad = read_human(source(advertising=["Acme"]), [path], "en")
    assert [example.category for example in examples] == ["roofs"]
    assert examples[0].source == ("faq/faq.jsonl:1", "Law 1")
    assert [receipt.kept for receipt in receipts] == [True, False, False]
    assert bad == []


@pytest.mark.parametrize(
    "line, cause",
    [
        (b"\xff", "utf-8"),
        (b"{", "line 1 column 2"),
        (json.dumps({"q": "x"}).encode(), "field 'a' is missing"),
        (json.dumps(row(a="  ")).encode(), "field 'a' must be a text that is not empty"),
        (json.dumps(row(q=7)).encode(), "field 'q' must be a text"),
        (json.dumps({**row(), "refs": "Law 1"}).encode(), "field 'refs' must be a list"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_a_row_that_cannot_be_read_goes_to_quarantine_with_line_and_cause(
    tmp_path: Path, line: bytes, cause: str
) -> None:
    path = tmp_path / "faq.jsonl"
    path.write_bytes(json.dumps(row()).encode() + b"\n" + line + b"\n")
    examples, _, bad = read_human(source(), [path], "en")
    assert len(examples) == 1
    assert (bad[0].file, bad[0].line) == (path.as_posix(), 2)
    assert cause in bad[0].cause
