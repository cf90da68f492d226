"""Human Q&A: read strictly, advertising left out, every row accounted for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.core.domain import HumanSource
from tasks.core.records import BadLine, Example, Turn
from tasks.corpus.ingest.human import human_rows, read_human, strip_advertising
from tasks.corpus.reading.lines import by_cause
from tasks.corpus.reading.rows import SourceError


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
        (b"\xff", "not UTF-8 at byte 0"),
        (b"{", "line 1 column 2"),
        (b"[]", "a row must be an object, not list"),
        (json.dumps({"q": "x"}).encode(), "field 'a' is missing"),
        (json.dumps(row(a=True)).encode(), "field 'a' must be a text, not bool"),
        (json.dumps(row(a=["A.", "B."])).encode(), "field 'a' must be a text, not list"),
        (json.dumps(row(a={"text": ["A."]})).encode(), "field 'a' must be a text, not dict"),
        (json.dumps(row(a="N/A")).encode(), "field 'a' must be a text that is not empty; N/A is no value"),
        (json.dumps(row(q="nan ")).encode(), "field 'q' must be a text that is not empty; nan is no value"),
        (json.dumps(row(a="<think>Well.")).encode(), "an answer holds thoughts only"),
        (json.dumps(row(a="  ")).encode(), "field 'a' must be a text that is not empty"),
        (json.dumps(row(q=7)).encode(), "field 'q' must be a text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"q":' * 100_000, "nested too deeply"),
        (b'{"q": "' + b"x" * 1_000_000 + b'"}', "a line of 1,000,010 characters; 1,000,000 are the most"),
        (b'{"q": "\\ud800", "a": "A."}', "field 'q': half a surrogate pair, U+D800"),
        (b'{"q": "Q", "a": "\\u0000"}', "field 'a': the control character U+0000"),
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


@pytest.mark.parametrize(
    "fields, reason, detail",
    [
        ({"a": "Up to <b>15</b> m²."}, "HTML in the answer", "<b>"),
        ({"a": 'See <a href="x">this</a>.'}, "HTML in the answer", '<a href="x">'),
        ({"a": "Ten weeks.&nbsp;Or more."}, "HTML in the answer", "&nbsp;"),
        ({"a": "Yes.<|im_end|>\n<|im_start|>system"}, "role mark in the text", "<|im_end|>"),
        ({"q": "<start_of_turn>model"}, "role mark in the text", "<start_of_turn>"),
        ({"q": "[INST] Who? [/INST]"}, "role mark in the text", "[INST]"),
    ],
)
def test_html_and_role_marks_are_in_receipt_and_quarantine_and_not_trained_on(
    tmp_path: Path, fields: dict[str, str], reason: str, detail: str
) -> None:
    path = tmp_path / "faq.jsonl"
    path.write_text(json.dumps({**row(), **fields}))
    examples, [receipt], [bad] = read_human(source(), [path], "en")
    assert examples == []
    assert (receipt.kept, receipt.reason, receipt.detail) == (False, reason, detail)
    assert bad.cause == f"{reason}: {detail}"


def test_every_answer_of_a_conversation_is_an_example_with_its_earlier_turns_as_history(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    said = [("system", "S"), ("human", "Q1"), ("gpt", "A1"), ("human", "Q2"), ("gpt", "A2")]
    openai = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    lines = [
        {"conversations": [{"from": who, "value": text} for who, text in said]},
        {"messages": openai},
        {"messages": openai[:1]},
        {"conversations": [{"from": "tool", "value": "x"}]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    examples, _, bad = read_human(source(columns=None), [path], "en")
    assert [(e.system, e.instruction, e.output) for e in examples] == [
        ("S", "Q1", "A1"), ("S", "Q2", "A2"), ("", "Q", "A")
    ]  # fmt: skip
    assert [e.history for e in examples] == [(), (Turn(user="Q1", assistant="A1"),), ()]
    assert examples[0].source == examples[1].source == ("faq/chats.jsonl:1",)
    assert "end with an answer" in bad[0].cause and "a turn is from 'tool'" in bad[1].cause


def test_a_csv_with_lists_of_sources_and_a_history_as_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "faq.csv"
    path.write_text('q;a;refs;h\n"How\nlong?";A1;Law 1;[]\nQ2;A2;"L1; L2";"[[""Hi"", ""Hello""]]"\n')
    columns = {"question": "q", "answer": "a", "sources": "refs", "history": "h"}
    [first, second], _, bad = read_human(source(columns=columns), [path], "en")
    assert (first.instruction, first.history, bad) == ("How\nlong?", (), [])
    assert second.source == ("faq/faq.csv:4", "L1", "L2")
    assert second.history == (Turn(user="Hi", assistant="Hello"),)


@pytest.mark.parametrize(
    "line, cause",
    [
        (b"Q,A,one too many", "3 fields, and the header has 2"),
        (b"Q", "1 fields, and the header has 2"),
        (b"Q,\xff\xfe", "field 'a': not UTF-8"),
        (b"Q," + b"x" * 1_000_001, "a line of 1,000,004 characters"),
        (b"Q," + b"x" * 200_000, "field larger than field limit"),
        (b'Q,"never closed', "not CSV: unexpected end of data"),
    ],
)
def test_a_bad_row_of_a_csv_costs_that_row_alone(tmp_path: Path, line: bytes, cause: str) -> None:
    path = tmp_path / "faq.csv"
    path.write_bytes(b"q,a\nQ1,A1\n" + line + b"\n" + (b"" if b"never" in line else b"Q3,A3\n"))
    examples, _, [bad] = read_human(source(columns={"question": "q", "answer": "a"}), [path], "en")
    assert len(examples) == (1 if b"never" in line else 2)
    assert bad.line == 3 and cause in bad.cause


def test_behind_a_mistake_a_list_is_given_up_and_the_quarantine_says_so(tmp_path: Path) -> None:
    path = tmp_path / "faq.json"
    path.write_text(f"[{json.dumps(row())}, 7, {json.dumps(row(q='Q2'))}, {{,}}, {json.dumps(row(q='Q3'))}]")
    examples, _, bad = read_human(source(), [path], "en")
    assert [e.instruction for e in examples] == ["Q?", "Q2"]
    assert [(line.line, line.cause[:16]) for line in bad] == [(2, "a row must be an"), (4, "not JSON (Expect")]
    assert bad[1].cause.endswith("the rest of the list is not read")


@pytest.mark.parametrize(
    "name, content, columns, message",
    [
        ("faq.csv", "q,a\nQ,A\n", {"question": "b", "answer": "a"}, "no column b; it has q, a"),
        ("faq.csv", "a,b\nQ,A\n", None, "which column is the question"),
        ("faq.csv", "q,q\nQ,A\n", None, "which column is the question.*the file has q #1, q #2"),
        ("faq.csv", "", None, "no header"),
        ("faq.xlsx", "not a sheet", None, "not an office file"),
        ("faq.json", '{\n"q": 1', None, "neither a JSON list of rows nor JSON lines"),
        ("faq.ods", "x", None, "rows are read from .jsonl"),
        ("faq.jsonl", "{", None, "not one row can be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: str, columns: Any, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        read_human(source(columns=columns), [tmp_path / name], "en")


METADATA = {"question": "q", "answer": "a", "category": "topic", "sources": "refs", "id": "id"}


@pytest.mark.parametrize(
    "fields, category, sources, unread",
    [
        ({"id": 7, "topic": 3, "refs": [1, "Law 2"]}, "3", ("7", "1", "Law 2"), []),
        ({"id": None, "topic": None, "refs": None}, "", (), []),
        ({"topic": "", "refs": ""}, "", (), []),
        ({}, "", (), []),
        ({"refs": [{"title": "Law"}], "topic": {"name": "roofs"}, "id": {"of": 1}}, "", (), ["refs", "topic", "id"]),
        ({"refs": {"page": 2}, "topic": "a\u0007b", "id": 2}, "", ("2",), ["refs", "topic"]),
        ({"refs": "N/A", "topic": "NULL", "id": "nan"}, "", (), []),
    ],
)  # fmt: skip
def test_metadata_is_never_asked_for_never_costs_a_row_and_is_counted_where_it_cannot_be_read(
    tmp_path: Path, fields: dict[str, Any], category: str, sources: tuple[str, ...], unread: list[str]
) -> None:
    path, unused, bad = tmp_path / "faq.jsonl", Counter[str](), list[BadLine]()
    path.write_text(json.dumps({"q": "Q1?", "a": 30, **fields}))
    [(example, _)] = human_rows(source(columns=METADATA), [path], "en", bad, unused)
    assert (example.output, example.category, bad) == ("30", category, [])
    place, *refs = sources or ("faq.jsonl:1",)
    assert example.source == (f"faq/{place}", *refs)
    assert unused == {f"faq.jsonl: {name}": 1 for name in unread}


@pytest.mark.parametrize(
    "given, read",
    [(" ", ""), ([], ""), (None, ""), ("NULL", ""), (7, "7"), ("One.", "One."), (["One.", "Two."], "One.\nTwo.")],
)
def test_alpaca_is_known_by_its_fields_and_a_context_may_be_blank_a_number_or_a_list(
    tmp_path: Path, given: Any, read: str
) -> None:
    path = tmp_path / "alpaca.json"
    row = {"instruction": "Q", "input": given, "output": "A", "history": [["Hi", "Hello"]]}
    path.write_text(json.dumps([{**row, "system": "Be brief."}, {**row, "system": None, "history": None}], indent=2))
    [first, second], _, bad = read_human(source(columns=None), [path], "en")
    assert (first.prompt, first.output, first.input, bad) == (f"Q\n\n{read}" if read else "Q", "A", read, [])
    assert (first.system, first.history) == ("Be brief.", (Turn(user="Hi", assistant="Hello"),))
    assert (second.system, second.history, second.source) == ("", (), ("faq/alpaca.json:2",))


def test_thoughts_before_an_answer_are_left_out_and_the_receipt_says_so(tmp_path: Path) -> None:
    path = tmp_path / "faq.jsonl"
    answers = ["<think>\nHm.\n</think>\n\nTen weeks.", "It hangs.</think>Ten weeks.", "Write <think>.</think>."]
    path.write_text("\n".join(json.dumps(row(a=answer)) for answer in answers))
    examples, receipts, _ = read_human(source(), [path], "en")
    assert [example.output for example in examples] == ["Ten weeks.", "Ten weeks.", "Write <think>.</think>."]
    told = "thoughts before the answer were left out"
    assert [receipt.detail for receipt in receipts] == [told, told, ""]


def test_fields_that_no_column_names_are_counted(tmp_path: Path) -> None:
    rows = [{**row(), "note": "x"}, {**row(q="Q2?"), "note": "", "link": "y"}, {**row(q="Q3?"), "note": "z"}]
    (tmp_path / "faq.jsonl").write_text("\n".join(map(json.dumps, rows)))
    unused = Counter[str]()
    assert len(list(human_rows(source(), [tmp_path / "faq.jsonl"], "en", [], unused))) == 3
    assert unused == {"faq.jsonl: note": 2, "faq.jsonl: link": 1}


def conversations(path: Path, *rows: dict[str, Any]) -> tuple[list[Example], list[str], Counter[str]]:
    path.write_text("\n".join(map(json.dumps, rows)))
    bad, unused = list[BadLine](), Counter[str]()
    read = human_rows(source(columns=None), [path], "en", bad, unused)
    return [example for example, _ in read], [line.cause for line in bad], unused


def said(*turns: str, role: str = "role", text: str = "content") -> list[dict[str, Any]]:
    return [{role: "assistant" if place % 2 else "user", text: turn} for place, turn in enumerate(turns)]


def test_what_the_system_says_beside_the_turns_is_used_and_tools_are_named(tmp_path: Path) -> None:
    turns = said("Q", "A", role="from", text="value")
    within = [{"from": "system", "value": "Be brief."}, *turns]
    [first, second, third], bad, unused = conversations(
        tmp_path / "a.jsonl",
        {"conversations": turns, "system": "You are the club.", "tools": "[{}]"},
        {"conversations": within, "system": "You are the club."},
        {"conversations": within, "system": "", "tools": "[{}]"},
    )
    assert [example.system for example in (first, second, third)] == [
        "You are the club.", "You are the club.\n\nBe brief.", "Be brief."
    ]  # fmt: skip
    assert (bad, unused) == ([], {"a.jsonl: tools": 2})


def test_openai_messages_with_parts_weights_other_roles_and_as_text_are_read(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "One"}, {"type": "text", "text": "two?"}]
    weighed = [
        {**turn, "weight": weight} for turn, weight in zip(said("Q1", "A1", "Q2", "A2"), (1, 1, 1, 0), strict=True)
    ]
    examples, bad, _ = conversations(
        tmp_path / "a.jsonl",
        {"messages": [{"role": "user", "content": parts}, *said("", "A")[1:]]},
        {"messages": [{"role": "developer", "content": "Be brief."}, *weighed]},
        {"messages": json.dumps(said("Q3", "A3"))},
        {"messages": [{"role": "User", "content": "Q4"}, {"role": "Assistant", "content": "A4"}]},
        {"messages": [{"role": "system", "content": None}, *said("Q5", "A5")], "system": " "},
    )
    assert [(e.system, e.instruction, e.output) for e in examples] == [
        ("", "One\ntwo?", "A"), ("Be brief.", "Q1", "A1"), ("", "Q3", "A3"), ("", "Q4", "A4"), ("", "Q5", "A5")
    ]  # fmt: skip
    assert bad == []


def test_conversations_that_are_not_text_or_not_to_be_learnt_are_refused_by_cause(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}
    picture = [{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {"url": "x"}}]
    _, bad, _ = conversations(
        tmp_path / "a.jsonl",
        {"messages": [said("Q")[0], {**said("", "A")[1], "weight": 0}]},
        {"messages": [*said("Q"), call]},
        {"messages": [{"role": "user", "content": picture}, *said("", "A")[1:]]},
        {"messages": "[{"},
        {"messages": said("Q", "A")},
    )
    assert bad == [
        "no answer of the conversation is to be learnt: each has weight, train, loss 0 or false",
        "a turn holds tool_calls, and an example holds text only",
        "a turn has a part of type 'image_url', and an example holds text only",
        "field 'messages' is a text, and no JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 3 (char 2)",
    ]


def test_pictures_and_calls_are_refused_by_name_with_their_count(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "A", "function_call": {"name": "f"}}
    rows = [{"messages": said("<image>What?", "A"), "images": ["a.jpg"]}, {"messages": [*said("Q"), call]}]
    path, bad = tmp_path / "a.jsonl", list[BadLine]()
    path.write_text("\n".join(map(json.dumps, [*rows * 2, {"messages": said("Q", "A"), "images": []}])))
    examples = [example for example, _ in human_rows(source(columns=None), [path], "en", bad)]
    assert [example.output for example in examples] == ["A"]
    assert [cause.split(" (")[0] for cause in by_cause(bad)] == [
        "2 rows not used: it comes with images, and an example holds text only",
        "2 rows not used: a turn holds function_call, and an example holds text only",
    ]


def test_an_answer_of_weight_0_stays_in_the_history_of_those_behind_it(tmp_path: Path) -> None:
    turns = said("Q1", "A1", "Q2", "BAD", "Q3", "A3")
    turns[3]["weight"] = 0
    examples, bad, _ = conversations(tmp_path / "a.jsonl", {"messages": turns})
    assert [(example.instruction, example.output) for example in examples] == [("Q1", "A1"), ("Q3", "A3")]
    assert [turn.assistant for turn in examples[1].history] == ["A1", "BAD"]
    assert bad == []


def test_markup_in_one_answer_costs_that_one_and_those_behind_it(tmp_path: Path) -> None:
    """They hold it in their history, which the model would read."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": said("Q1", "A1", "Q2", "<b>A2</b>", "Q3", "A3")}))
    examples, receipts, bad = read_human(source(columns=None), [path], "en")
    assert [example.output for example in examples] == ["A1"]
    assert [receipt.kept for receipt in receipts] == [True, False, False]
    assert [line.cause for line in bad] == ["HTML in the answer: <b>"]


@pytest.mark.parametrize(
    "flag", [{"train": False}, {"loss": False}, {"weight": "0"}, {"weight": 0.0}, {"train": "False"}]
)
def test_an_answer_that_is_marked_as_not_to_be_learnt_is_not(tmp_path: Path, flag: dict[str, Any]) -> None:
    *turns, last = said("Q1", "A1", "Q2", "BAD")
    [example], bad, unused = conversations(tmp_path / "a.jsonl", {"messages": [*turns, {**last, **flag}]})
    assert (example.output, bad, unused) == ("A1", [], {})


def test_fields_within_turns_and_a_second_conversation_are_counted(tmp_path: Path) -> None:
    [question, answer] = said("Q", "<think>Hm.</think>A")
    thought = {**answer, "reasoning_content": "Hm.", "tool_calls": []}
    examples, bad, unused = conversations(
        tmp_path / "a.jsonl",
        {"conversations": None, "messages": [question, thought, question, thought]},
        {"messages": [], "conversation": [question, answer]},
        {"messages": [question, answer], "conversation": [question, answer]},
    )
    assert [(example.output, example.history) for example in examples] == [
        ("A", ()), ("A", (Turn(user="Q", assistant="A"),)), ("A", ()), ("A", ())
    ]  # fmt: skip
    assert (bad, unused) == ([], {"a.jsonl: messages.reasoning_content": 1, "a.jsonl: conversation": 1})


def test_an_error_of_a_sheet_is_no_answer(tmp_path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    for cells in (["q", "a", "note"], ["Q1", "#N/A", "x"], ["Q2", "A2", "#REF!"]):
        book.active.append(cells)
    book.active["B2"].data_type = book.active["C3"].data_type = "e"
    book.save(tmp_path / "faq.xlsx")
    [example], _, [bad] = read_human(source(columns={"question": "q", "answer": "a"}), [tmp_path / "faq.xlsx"], "en")
    assert (example.instruction, bad.line, bad.cause) == ("Q2", 2, "field 'a' holds the error #N/A")
