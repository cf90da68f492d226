"""A folder of a team's own material becomes a domain that ingest runs on, with nothing asked."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flywheel.new_domain.folder import columns_in, guess_columns, language_of, look
from flywheel.new_domain.new_domain import NewDomainError, TrialError, _sizes, _title, new_domain
from tasks.core import layout
from tasks.core.domain import Columns, load_domain
from tasks.core.params import load_params
from tasks.core.records import Document, Example, Receipt, Seed, make_item, read_own_jsonl
from tasks.core.tables import read_records
from tasks.corpus.ingest.stage import ingest
from tasks.corpus.reading.rows import SourceError

THINGS = [
    "Roofs of clay tile",
    "Outer walls of brick",
    "Floors of old oak",
    "Windows that face north",
    "Iron garden gates",
    "Stoves for burning wood",
    "Pumps in a deep well",
    "Drains under the yard",
    "Panels on the shed",
    "Stairs to a cellar",
    "Beams above the kitchen",
    "Fences by the road",
]
ASKED = (
    "last how many years?",
    "cost whom how much?",
    "need which permit?",
    "are cleaned by whom?",
    "break how often?",
)
QUESTIONS = [f"{thing} {asked}" for thing in THINGS for asked in ASKED]  # sixty, none near another


@pytest.fixture
def project(root: Path, base_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the default domain, the packages it reads, and its base model."""
    model = tmp_path / layout.BASE_MODEL
    model.parent.mkdir(parents=True)
    model.symlink_to(base_model)
    shutil.copytree(root / "domains", tmp_path / "domains")
    shutil.copy(root / "params.yaml", tmp_path)
    for name in ("infra", layout.PACKAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Word file, a Markdown file, an empty PDF, and a CSV of sixty questions under names of its own."""
    from docx import Document as Word

    made = tmp_path / "handbook [draft]"
    made.mkdir()
    write_csv(made / "our questions.csv", QUESTIONS)
    word = Word()
    word.add_paragraph("The house stands on a slab of concrete, and its roof has clay tiles.")
    word.save(str(made / "house.docx"))
    (made / "README.md").write_text("# Looking after a house\n\nEverything that we know about it.")
    (made / "scan.pdf").touch()
    return made


def write_csv(path: Path, questions: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(["Nr", "Text", "Reply from the office"])
        writer.writerows(
            [n, text, f"The office says about number {n} that it depends."] for n, text in enumerate(questions)
        )


@pytest.mark.slow
def test_a_folder_becomes_a_domain_that_ingest_runs_on(project: Path, folder: Path) -> None:
    built = new_domain("house", folder)
    assert (built.language, built.title) == ("en", "Looking after a house")
    domain = load_domain("house")
    assert domain.human[0].columns == Columns(question="Text", answer="Reply from the office", id="Nr")
    assert domain.evaluation.domain == 12, "one in five of sixty"
    assert domain.system_text() == "You answer questions about Looking after a house."
    assert any("scan.pdf: empty" in decision for decision in built.decisions)
    assert built.decisions[-1].startswith("tried: validate: 48 of 48 rows are valid")
    assert built.next == ["sed -i 's/^domain:.*/domain: house/' params.yaml", "make run"]
    assert not layout.INGEST.exists(), "what is tried is tried elsewhere"

    said = ingest(domain)
    assert said.startswith("48 examples, 48 of them seeds, 2 documents")
    examples = read_records(layout.INGEST / "examples.parquet", Example)
    frozen = {item["prompt"] for item in map(json.loads, (layout.EVALUATION_ITEMS / "domain.jsonl").open())}
    assert len(frozen) == 12 and frozen.isdisjoint(example.instruction for example in examples)
    seeds = read_own_jsonl(layout.INGEST / "seeds.jsonl", Seed)
    assert {seed.id for seed in seeds} == {example.id for example in examples}, "a seed is an example, once"
    names = [document.name for document in read_records(layout.INGEST / "documents.parquet", Document)]
    assert names == ["house-documents/README.md", "house-documents/house.docx"]
    kept_and_dropped = [layout.INGEST / f"{name}.parquet" for name in ("examples", "general", "safety", "dropped")]
    told = {example.id for path in kept_and_dropped for example in read_records(path, Example)}
    receipts = read_records(layout.INGEST / "receipt.parquet", Receipt)
    assert {receipt.example_id for receipt in receipts} == told, "what a receipt speaks of can be looked up"


@pytest.fixture
def chinese(tmp_path: Path) -> Path:
    """Sixty questions in Chinese."""
    made = tmp_path / "wenda"
    made.mkdir()
    things = ["年检标志", "临时牌照", "驾驶证换证", "违章处理", "车辆过户", "夜间停车"]
    things += ["校车许可", "货车通行", "电动车登记", "事故快处", "限行查询", "尾气检测"]
    asked = ("在哪里可以办理", "需要多少费用", "要带什么证件", "多久可以完成", "由谁负责审批")
    rows = [f"{thing}{question}？,{thing}的规定写在第{n}页。" for n, thing in enumerate(things) for question in asked]
    (made / "wenda.csv").write_text("\n".join(["问题,答案", *rows]), encoding="gb18030")
    return made


def test_a_chinese_folder_becomes_a_domain_with_every_file_that_it_names(project: Path, chinese: Path) -> None:
    built = new_domain("wenda", chinese)
    domain = load_domain("wenda")
    assert (built.language, domain.base_model.terms) == ("zh", "gemma")
    assert domain.paths(domain.safety)[0].is_file() and (domain.folder / domain.base_model.chat_template).is_file()
    assert "its terms are not accepted; 48 rows are left, and validate.min_rows = 30" in built.decisions[-1]
    assert built.next[2] == "sed -i 's/^accepted_terms:.*/accepted_terms: [gemma]/' params.yaml"


def test_what_a_release_would_refuse_is_refused_at_once_and_leaves_nothing(project: Path, chinese: Path) -> None:
    params = Path("params.yaml").read_text().replace("min_rows: 30", "min_rows: 49")
    Path("params.yaml").write_text(params)
    with pytest.raises(TrialError, match=r"would stop: 48 rows are left, fewer than validate\.min_rows = 49"):
        new_domain("wenda", chinese)
    assert not Path("domains/wenda").exists()


def test_questions_under_a_system_text_make_a_domain_without_seeds(project: Path, chinese: Path) -> None:
    """A seed has no system text: the model that learns from it would miss what the answer was said under."""
    table = (chinese / "wenda.csv").read_text(encoding="gb18030").splitlines()[1:]
    pairs = [line.split(",") for line in table]
    roles = ("user", "assistant")
    rows = [
        {
            "messages": [{"role": role, "content": text} for role, text in zip(roles, pair, strict=True)],
            "system": "简短。",
        }
        for pair in pairs
    ]
    (chinese / "wenda.csv").unlink()
    (chinese / "chat.json").write_text(json.dumps(rows))
    built = new_domain("wenda", chinese)
    assert load_domain("wenda").seeds == [] and any(said.startswith("no seeds") for said in built.decisions)


def test_every_file_is_told_with_what_is_not_used_of_it(project: Path, chinese: Path) -> None:
    rows = [{"question": f"{n}？", "answer": "甲", "context": "乙", "editor": "丙", "id": n} for n in range(3)]
    (chinese / "more.jsonl").write_text("\n".join([*map(json.dumps, rows), "{", '{"question": "谁？", "late": 1}']))
    (chinese / "broken.pdf").write_text("%PDF-1.4 and no more")
    (chinese / "test.csv").write_text("question,A,B,C,answer\nWhich?,x,y,z,B\n")
    told = {file.pop("file"): file for file in new_domain("wenda", chinese).files}
    assert told.keys() == {"wenda.csv", "more.jsonl", "broken.pdf", "test.csv"}
    assert (told["wenda.csv"]["rows"], told["wenda.csv"]["encoding"], told["wenda.csv"]["not_used"]) == (
        60,
        "gb18030",
        [],
    )
    assert told["more.jsonl"]["columns"] == {
        "question": "question", "answer": "answer", "input": "context", "id": "id"
    }  # fmt: skip
    assert told["more.jsonl"]["unused_columns"] == {"editor": 3, "late": 1}
    assert [cause[:30] for cause in told["more.jsonl"]["not_used"]] == [
        "1 row not used: Expecting prop", "1 row not used: field 'answer'"
    ]  # fmt: skip
    assert told["broken.pdf"]["not_used"][0].startswith("not readable")
    assert told["test.csv"]["not_used"][0].startswith("a multiple-choice test (A, B, C)")


def test_too_few_questions_are_refused_and_leave_nothing(project: Path, folder: Path) -> None:
    write_csv(folder / "our questions.csv", QUESTIONS[:49])
    message = (
        r"(?s)the tables hold 49 different questions; 50 are needed.*questions: our questions.csv: 49 \(question in"
    )
    with pytest.raises(NewDomainError, match=message):
        new_domain("house", folder)
    assert not Path("domains/house").exists()


def test_different_questions_that_are_near_one_another_are_counted_as_such(root: Path) -> None:
    """Sixty from one template: to take one out for the evaluation would leave its answer in the others."""
    asked = [f"What does paragraph {n} say about the notice of a lease?" for n in range(1, 61)]
    items = [make_item(set="domain", prompt=text, reference="Six days.", category="", source=()) for text in asked]
    message = (
        r"hold 60 different questions, 0 of them near no other \('.* 1 say.*' and '.* 2 say.*' are near .*; 50 such"
    )
    with pytest.raises(NewDomainError, match=message):
        _sizes({"domain": items}, load_params(root / "params.yaml"), [])


def test_the_title_is_a_readmes_first_heading_where_its_letters_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "Readme images").mkdir()
    (tmp_path / "README.md").write_text("# Båtklubb", encoding="cp1252")
    assert _title("boat_club", tmp_path) == "Boat club"
    (tmp_path / "README.md").write_text("# Båtklubb", encoding="utf-8-sig")
    assert _title("boat_club", tmp_path) == "Båtklubb"


@pytest.mark.parametrize(
    "name, message", [("construction", "exists already"), ("Häuser", "small letters"), ("../x", "small letters")]
)
def test_a_name_that_is_taken_or_no_name_is_refused(project: Path, folder: Path, name: str, message: str) -> None:
    with pytest.raises(NewDomainError, match=message):
        new_domain(name, folder)
    assert Path("domains/construction/domain.yaml").exists()


def test_a_folder_without_a_table_is_refused_with_what_was_found(project: Path, folder: Path) -> None:
    (folder / "our questions.csv").write_text("Year;Rain\n2020;7\n")
    (folder / "our questions.csv").rename(folder / "rain.csv")
    with pytest.raises(
        NewDomainError, match=r"(?s)no table of questions and answers.*rain.csv: no column of questions"
    ):
        new_domain("house", folder)


@pytest.mark.parametrize(
    "rows, question, answer, more",
    [
        ([{"Fråga": "Hur?", "Svar": "Så."}], "Fråga", "Svar", {}),
        ([{"编号": "1", "问题": "谁", "答案": "我"}], "问题", "答案", {"id": "编号"}),
        ([{"x": "谁登记？", "y": "车主", "z": "公安机关交通管理部门"}], "x", "z", {}),
        ([{"q": "A?", "a": "B", "topic": ""}], "q", "a", {}),
        ([{"q": "A?", "a": "B"}, {"q": "C?", "a": "D", "topic": "t"}], "q", "a", {"category": "topic"}),
        ([{"A": "x", "question": "q?", "answer": "y"}], "question", "answer", {}),
        ([{"input": "q?", "output": "y"}], "input", "output", {}),
        ([{"q": "A?", "explanation": "long and wide", "gold_answer": "B"}], "q", "gold_answer", {}),
        ([{"Input": "A", "Actual output": "Wrong", "Expected output": "B"}], "Input", "Expected output", {}),
        ([{"title": "A?", "body": "long and wide", "accepted_answer": "B"}], "title", "accepted_answer", {}),
        ([{"1": "A?", "2": "B"}], "1", "2", {}),
        ([{"q": "A?", "a": "Ann", "c": "long and wide"}], "q", "a", {}),
        ([{"query": "A?", "expected": "B", "actual": "long and wide"}], "query", "expected", {}),
        ([{"客户问题": "谁？", "客服回复": "我", "备注": "不公开"}], "客户问题", "客服回复", {}),
        ([{"query": "A?", "positive": "B", "negative": "long and wide"}], "query", "positive", {}),
        ([{"id": "1", "q": "A?", "a": "B"}, {"id": "1", "q": "C?", "a": "D"}], "q", "a", {}),
        ([{"question": "Which?", "A": "10", "B": "20", "C": "30", "answer": "20"}], "question", "answer", {}),
    ],
)
def test_columns_are_told_by_name_or_by_content(
    rows: list[dict[str, str]], question: str, answer: str, more: dict[str, str]
) -> None:
    assert guess_columns(rows) == Columns(question=question, answer=answer, **more)


@pytest.mark.parametrize(
    "row",
    [
        {"question": "Which?", "A": "x", "B": "y", "C": "z", "answer": "B"},
        {"question": "Which?", "A": "x", "B": "y", "C": "z"},
        {"问题": "哪个？", "选项1": "x", "选项2": "y", "选项3": "z", "答案": "2"},
        {"question": "Which?", "choices": ["x", "y"], "answer": 1},
        {"question": "Which?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"},
        {"Question": "Which?", "Answer A": "x", "Answer B": "y", "Answer C": "z", "Correct": "B"},
        {"Fråga": "Vilken?", "1": "ett", "X": "kryss", "2": "två", "Rätt": "X"},
        {"question": "Which?", "opa": "x", "opb": "y", "opc": "z", "cop": 1, "exp": "Because it is."},
        {"question": "Which?", "a)": "x", "b)": "y", "c)": "z", "answer": "a)"},
        {"question": "Which?", "A": "x", "B": "y", "C": "z", "answer": "A, C"},
        {"Question": "Which?", "Answer 1": "x", "Answer 2": "y", "Answer 3": "z", "Correct answer(s)": "1,3"},
        {"Question": "Which?", "Option 1": "x", "Option 2": "y", "Option 3": "z", "Answer": "Option 2"},
        {"question": "Which?", "choice1": "x", "choice2": "y", "label": 1},
        {"问题": "哪些？", "选项A": "x", "选项B": "y", "选项C": "z", "答案": "ABC"},
    ],
)
def test_a_multiple_choice_test_is_refused_by_name(row: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="a multiple-choice test"):
        guess_columns([row])


@pytest.mark.parametrize(
    "names", [("response_1", "response_2"), ("model_answer", "human_answer"), ("answer (en)", "answer (sv)")]
)
def test_two_columns_that_may_both_be_the_answer_are_refused_with_what_to_do(names: tuple[str, str]) -> None:
    row = {"prompt": "Which?"} | dict.fromkeys(names, "This one.")
    with pytest.raises(
        SourceError, match=rf"may stand in {re.escape(' or '.join(names))}; rename the right one to `answer`"
    ):
        guess_columns([row])


def test_preferences_are_no_answers_and_belong_elsewhere(tmp_path: Path) -> None:
    """The rejected answer was the longest text, and was learnt."""
    path = tmp_path / "dpo.jsonl"
    path.write_text(json.dumps({"prompt": "Who?", "chosen": "I.", "rejected": "I am sorry, but no."}))
    assert "name it under `preferences` of domain.yaml" in look(tmp_path).unused[path]


def test_alpaca_and_sharegpt_need_no_columns_and_rows_with_a_text_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "Q", "output": "A"}]))
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": turns}))
    (tmp_path / "c.jsonl").write_text(json.dumps({"id": 1, "text": "A law.", "url": "x"}))
    (tmp_path / ".hidden.csv").write_text("x")
    assert columns_in(tmp_path / "a.json") is None and columns_in(tmp_path / "b.jsonl") is None
    found = look(tmp_path)
    assert [path.name for path in found.tables] == ["a.json", "b.jsonl"]
    assert [(path.name, use.unused) for path, use in found.documents.items()] == [("c.jsonl", {"url": 1})]
    assert found.unused == {}


def test_the_language_is_told_without_spaces_too() -> None:
    assert language_of(["机动车应当在公安机关登记以后才可以上道路行驶。"]) == "zh"
    assert language_of(["Hur länge håller ett tak av tegel i Sverige?"]) == "sv"
    with pytest.raises(SourceError, match="cannot be told"):
        language_of(["1234"])
