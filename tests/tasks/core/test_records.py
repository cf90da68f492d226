"""Records: strict reading, nothing lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.core.records import BadLine, Example, Turn, make_item, read_jsonl, write_jsonl
from tests.examples import an_example

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5))
def test_what_is_written_is_read_back_whatever_the_text(pairs: list[tuple[str, str]]) -> None:
    import tempfile

    records = [an_example(question, answer) for question, answer in pairs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        write_jsonl(path, records)
        assert read_jsonl(path, Example) == (records, [])


def test_bad_lines_are_returned_with_file_line_and_cause(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    good = an_example().model_dump_json().encode()
    path.write_bytes(good + b"\n\xff\xfe\n" + b'{"id": 3}\n\n' + b"{not json\n" + good)
    records, bad = read_jsonl(path, Example)
    assert len(records) == 2
    assert [(line.line, line.file) for line in bad] == [(n, path.as_posix()) for n in (2, 3, 5)]
    assert "not UTF-8 at byte 0" in bad[0].cause
    assert "instruction: Field required" in bad[1].cause


def test_a_line_of_one_hundred_thousand_brackets_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("[" * 100_000)
    records, bad = read_jsonl(path, Example)
    assert records == []
    assert isinstance(bad[0], BadLine)
    assert len(bad[0].text) == 2000


def test_an_id_depends_on_content_and_not_on_where_it_came_from() -> None:
    here, there = an_example(source=("a",)), an_example(origin="general", source=("b",))
    told = an_example(source=("a",), history=(Turn(user="x", assistant="y"),))
    assert here.id == there.id != told.id


def test_an_item_has_a_reference_or_choices_and_never_both() -> None:
    with pytest.raises(ValidationError, match="either a reference or choices"):
        make_item(set="domain", prompt="Q")
    with pytest.raises(ValidationError, match="index of one of the choices"):
        make_item(set="mmlu", prompt="Q", choices=("a", "b"), answer=2)
