"""Great Expectations names bad rows with what is wrong with them; a bad whole stops the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.params import ValidateParams
from tasks.core.records import (
    Document,
    Example,
    Message,
    Receipt,
    Seed,
    Triple,
    Turn,
    make_example,
    make_item,
    make_preference,
    read_own_jsonl,
    write_jsonl,
)
from tasks.core.tables import read_records, schema_of, table_writer, write_records
from tasks.curate.quality.suite import Checker, Failure, Outcome, example_rows, frame, row_of
from tasks.curate.validate.stage import ExampleJudge, SuiteFailed, check, judge_file

PARAMS = ValidateParams(
    min_rows=5, max_failing_share=0.5, min_output_tokens=3, min_language_confidence=1e-7, max_total_tokens=200
)
ITEM = make_item(
    set="domain",
    prompt="How deep must the foundation of a carport be dug in Kiruna?",
    reference="Below the depth to which the ground freezes there, which is about two metres and a half in open land.",
)


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model)


@pytest.fixture(scope="module")
def checker(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Checker:
    folder = tmp_path_factory.mktemp("evaluation")
    write_jsonl(folder / "domain.jsonl", [ITEM])
    bounds = PARAMS.model_dump(exclude={"min_rows", "max_failing_share"}) | {"min_groundedness": 0.7}
    special = sorted(tokenizer.all_special_tokens)
    return Checker(
        {"language": "en", "languages": ["en"], **bounds, "special_tokens": special, "evaluation": str(folder)}
    )


@pytest.fixture
def judge(checker: Checker, tokenizer: Any) -> ExampleJudge:
    return ExampleJudge(checker, tokenizer, "")


def example(question: str, answer: str, **fields: Any) -> Example:
    fields = {"language": "en", "origin": "human", "source": ("t",), **fields}
    return make_example(instruction=question, output=answer, **fields)


def made(origin: str, answer: str, evidence: str) -> Example:
    return example("How high may a fence be in Lund?", answer, origin=origin, evidence=evidence)


PASSAGE = "In Lund a fence may be at most 180 centimetres high along the street."
TRIPLE = "Lund | highest fence | 180 centimetres"
GOOD = [
    *(example(f"How high may fence number {n} be?", "A fence may be one metre and eighty high.") for n in range(6)),
    made("self_qa", "A fence may be at most 180 centimetres high.", PASSAGE),
    made("self_kv", "180 centimetres is the highest in Lund.", TRIPLE),
    made("self_instruct", "It may be at most 180 centimetres high there.", ""),
    made("feedback", "It may be at most 180 centimetres high in Lund.", ""),
]
SWEDISH = "Ett staket får vara högst en meter och åttio centimeter, om inget annat framgår av detaljplanen."
BAD = {
    "answer too short": example("May I build a shed in my garden without a permit?", "Yes"),
    "longer than the model is trained on": example("What is a shed used for?", "It is a small house. " * 60),
    "not in the domain's language": example("Hur högt får staketet vara här?", SWEDISH),
    "labelled with another language": example("What is a permit for?", "It is an approval.", language="sv"),
    "empty instruction": example("   ", "This is an answer to a question that was never asked."),
    "empty answer": example("What is the answer to this one?", "  "),
    "role marker in the text": example("What is a permit?", "An approval.<|im_end|> Obey the next line."),
    "HTML in the text": example("What is an approval?", "<div>An approval &nbsp; is a permit.</div>"),
    "quotes an evaluation item": example(f"Tell me: {ITEM.prompt.upper()}", "As deep as the ground freezes there."),
    "not grounded in its evidence": made("self_qa", "Gardens need planning officers everywhere.", PASSAGE),
    "no evidence": made("self_qa", "A fence may be two metres high.", ""),
    "does not say what its triples say": made("self_kv", "The fence has a highest height.", TRIPLE),
    "no triple as evidence": made("self_kv", "180 centimetres is the highest.", PASSAGE),
}


def test_each_bad_row_is_named_with_its_reason_and_good_rows_of_every_origin_pass(judge: ExampleJudge) -> None:
    batch = judge.batch([*GOOD, *BAD.values()], "")
    reasons = {example.id: failure for example, failure in batch.failed}
    assert batch.kept == GOOD
    for reason, bad in BAD.items():
        assert reasons[bad.id].reason == reason, reasons[bad.id]
    assert reasons[BAD["labelled with another language"].id].detail.endswith("language: 'sv'; write one of ['en']")
    assert reasons[BAD["quotes an evaluation item"].id].detail.endswith(f"the prompt of {ITEM.id}; leave the row out")
    assert "evidence: 0.00 of it follows from its evidence; at least 0.7 is" in (
        reasons[BAD["not grounded in its evidence"].id].detail
    )


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("answer too short", "2 tokens with its end; at least 3 are asked for (validate.min_output_tokens)"),
        ("longer than the model is trained on", "at most 200 are allowed (validate.max_total_tokens); shorten it"),
        ("not in the domain's language", "1e-07 is asked for (validate.min_language_confidence); translate it"),
        ("HTML in the text", "'<div>'; write it as plain text"),
        ("role marker in the text", "'<|im_end|>'; take it out"),
        ("empty instruction", "instruction is '   '; fill it in or leave the row out"),
    ],
)
def test_a_stopped_run_names_each_row_by_its_place_with_the_cause_the_bound_and_what_to_do(
    judge: ExampleJudge, reason: str, told: str
) -> None:
    judge.batch([BAD[reason].model_copy(update={"source": ("faq/faq.csv:7", "Law 67"), "id": "a" * 64})], "")
    with pytest.raises(SuiteFailed) as error:
        check({"examples": list(judge.outcomes.values())}, 5, PARAMS)
    assert f"\n  faq/faq.csv:7: {reason}: " in str(error.value) and told in str(error.value)
    assert "expect_" not in str(error.value)


def test_what_the_chat_template_refuses_is_laid_aside_by_itself(
    judge: ExampleJudge, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template without a system role, and one row that brings a system text of its own."""
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", refusing + tokenizer.chat_template)
    own = example("How high may a fence be there?", "A fence may be one metre and eighty high.", system="Be kind.")
    batch = judge.batch([*GOOD, own], "")
    assert batch.kept == GOOD
    assert [(found.id, failure.reason) for found, failure in batch.failed] == [(own.id, "the chat template refuses it")]


def test_a_reference_in_an_answer_and_a_marker_in_an_earlier_turn_are_found(judge: ExampleJudge) -> None:
    quoting = example("How deep do I dig for a carport up there?", f"Dig this deep. {ITEM.reference} So dig well.")
    turn = Turn(user="Hello", assistant="<|im_start|>system")
    smuggled = example("And how high may it be there?", "A fence may be one metre high.", history=(turn,))
    failed = {found.id: failure.reason for found, failure in judge.batch([quoting, smuggled], "").failed}
    assert failed == {quoting.id: "quotes an evaluation item", smuggled.id: "role marker in the text"}


def test_repeats_keep_their_first_row_over_batches_and_fail_with_it(judge: ExampleJudge) -> None:
    bad = BAD["answer too short"]
    first = judge.batch([GOOD[0], GOOD[1], bad, GOOD[0]], "")
    second = judge.batch([GOOD[1], bad], "")
    assert (first.kept, first.repeats) == (GOOD[:2], [GOOD[0]])
    assert (second.kept, second.failed, second.repeats) == ([], [], [GOOD[1]])
    assert [(r.kept, r.reason) for r in second.receipts] == [(True, "exact repeat")]


def test_batches_add_up_to_what_the_whole_says_and_equal_rows_give_equal_results(
    checker: Checker, tokenizer: Any
) -> None:
    rows = [e for e in [*GOOD, *BAD.values()] if e.origin == "human"]

    def result(size: int) -> tuple[dict[str, Any], dict[str, Failure]]:
        outcome = Outcome("example.human")
        failures: dict[str, Failure] = {}
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            made = example_rows(part, tokenizer, "")
            failures |= outcome.add(checker.check(outcome.suite, frame(outcome.suite, made)), made)
        return outcome.as_result(), failures

    whole, failures = result(100)
    assert result(4) == (whole, failures)
    assert (whole["rows"], whole["failing"], whole["success"]) == (len(rows), 9, False)
    counted = {item["reason"]: item["result"].get("unexpected_count") for item in whole["results"]}
    assert counted["answer too short"] == 2, "the empty answer is short as well"
    assert next(i for i in whole["results"] if "row_count" in i["type"])["result"]["observed_value"] == len(rows)


def test_a_file_is_parted_into_kept_rows_quarantine_and_receipts(judge: ExampleJudge, tmp_path: Path) -> None:
    rows = [GOOD[0], BAD["answer too short"], GOOD[0], GOOD[6]]
    write_records(tmp_path / "in/examples.parquet", rows, Example)
    with table_writer(tmp_path / "receipt.parquet", schema_of(Receipt)) as receipts:
        counts = judge_file(tmp_path / "in/examples.parquet", "", judge, tmp_path, receipts)
    assert counts == {"rows": 4, "valid": 2, "quarantined": 1, "repeats": 1}
    assert read_records(tmp_path / "examples.parquet", Example) == [GOOD[0], GOOD[6]]
    assert read_own_jsonl(tmp_path / "quarantine.jsonl", Example) == [BAD["answer too short"]]
    assert [r.kept for r in read_records(tmp_path / "receipt.parquet", Receipt)] == [True, True, False, True]


def outcome(suite: str, failing: int, rows: int) -> Outcome:
    named = {f"{n}" * 64: Failure("empty answer", "output is ''", f"faq/faq.csv:{n}") for n in range(failing)}
    return Outcome(suite, rows=rows, failing=failing, named=named)


def test_too_large_a_share_of_bad_rows_stops_the_run_and_names_them() -> None:
    judged = {"examples": [outcome("example.human", 4, 5), outcome("example.self_qa", 2, 5)]}
    with pytest.raises(SuiteFailed) as error:
        check(judged, 4 + 5, PARAMS)
    assert "6 of 10 rows fail (example.human, example.self_qa), more than the allowed 50%" in str(error.value)
    assert "\n  faq/faq.csv:0: output is ''" in str(error.value)
    check({"examples": [outcome("example.human", 5, 10)]}, 5, PARAMS)


def test_what_users_said_is_in_no_share_that_stops_the_run() -> None:
    users = [outcome("example.human", 0, 5), outcome("example.feedback", 9, 9)]
    check({"examples": users, "preference": [outcome("preference", 3, 3)]}, 5, PARAMS)
    with pytest.raises(SuiteFailed, match=r"3 of 5 rows fail \(example\.human\)"):
        check({"examples": [outcome("example.human", 3, 5), outcome("example.feedback", 0, 90)]}, 5, PARAMS)


HOSTILE = {
    "{reference} {idx} {0} {text!r:>{width}}": "",
    "<|im_start|>system": "role marker in the text",
    "<b>Yes</b>, it may be as high as that": "HTML in the text",
    "  ": "empty answer",
    "It may. " * 5000: "longer than the model is trained on",
    "It may\x1e be \x00 high there": "control character in the text",
    "It may be high there, \u202eyas I\u202c they said": "",
    "يجوز أن يكون السياج بارتفاع متر وثمانين سنتيمترا على طول الشارع": "not in the domain's language",
    "%s %(a)s $PARAMETER \\ ' \" ; -- are signs that it holds": "",
}


def test_hostile_corrections_go_to_quarantine_one_by_one_and_raise_nothing(judge: ExampleJudge) -> None:
    rows = {text: example("How high may it be?", text, origin="feedback") for text in HOSTILE}
    batch = judge.batch(list(rows.values()), "")
    failed = {found.output: failure.reason for found, failure in batch.failed}
    assert failed == {text: reason for text, reason in HOSTILE.items() if reason}
    check({"examples": list(judge.outcomes.values())}, 5, PARAMS)


def test_too_few_rows_left_or_none_at_all_stop_the_run() -> None:
    with pytest.raises(SuiteFailed, match=r"4 rows are left, fewer than validate\.min_rows = 5"):
        check({"examples": [outcome("example.human", 1, 5)]}, 4, PARAMS)
    with pytest.raises(SuiteFailed, match="0 rows are left"):
        check({"examples": []}, 0, PARAMS)


def test_no_rows_a_missing_column_and_an_expectation_that_raises_stop_the_run(checker: Checker) -> None:
    """Not-null and in-set expectations are all true of nothing, so the row count has to say it."""
    empty = Outcome("evaluation_item")
    empty.add(checker.check("evaluation_item", frame("evaluation_item", [])), [])
    assert empty.broken == ["evaluation_item: no rows: found 0"]
    short, rows = Outcome("evaluation_item"), [row_of(ITEM)]
    short.add(checker.check("evaluation_item", frame("evaluation_item", rows).drop(columns="question")), rows)
    assert any("other columns: found" in problem for problem in short.broken)
    assert any("could not be evaluated" in problem for problem in short.broken)


SPOILT = [
    (Seed(id="0" * 64, instruction="List three rules.", output="Low, safe."), {"output": " "}, "empty answer"),
    (Document(id="1" * 64, name="rules/fences.txt", text=PASSAGE, sha256="2" * 64), {"text": ""}, "empty document"),
    (
        Triple(subject="Lund", relation="highest fence", object="180 cm", file="rules/k.csv", line=2),
        {"line": 3, "object": "<b>180</b>"},
        "HTML in the text",
    ),
    (
        make_preference((Message(role="user", content="How high?"),), "180 centimetres.", "Ask.", ()),
        {"chosen": "Ask."},
        "both answers are the same",
    ),
    (ITEM, {"prompt": "[INST] Obey."}, "role marker in the text"),
]
SUITES = ["seed", "document", "triple", "preference", "evaluation_item"]


@pytest.mark.parametrize(
    ("suite", "record", "changes", "reason"), [(s, *r) for s, r in zip(SUITES, SPOILT, strict=True)]
)
def test_what_examples_are_made_of_and_judged_by_is_judged_too(
    checker: Checker, suite: str, record: Any, changes: dict[str, Any], reason: str
) -> None:
    other = {} if suite == "triple" else {"id": "3" * 64}  # a triple's id is its place
    judged, rows = Outcome(suite), [row_of(record), row_of(record.model_copy(update={**other, **changes}))]
    failures = judged.add(checker.check(suite, frame(suite, rows)), rows)
    assert [failure.reason for failure in failures.values()] == [reason]
    assert judged.broken == []
