"""The index: what of the material may be found, where it came from, and what must never be in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.core import layout
from tasks.core.domain import KnowledgeSettings, load_domain
from tasks.core.files import digest_of
from tasks.core.params import load_params
from tasks.core.records import (
    Document,
    Example,
    Passage,
    Receipt,
    Triple,
    Turn,
    make_item,
    make_passage,
    write_jsonl,
)
from tasks.core.tables import read_records, write_records
from tasks.knowledge.index import stage as index
from tasks.knowledge.index.stage import HELD_OUT, admitted, passages_of, stage
from tasks.knowledge.search import Knowledge
from tasks.similarity.embedder import cosines
from tasks.text.passages import answering_words
from tests.examples import an_example
from tests.laid_index import count, entry

pytestmark = pytest.mark.usefixtures("home")
TEXT = " ".join(f"Sentence {number} of a long text tells of sheds." for number in range(200))


def document(text: str, name: str = "law/pbl.txt") -> Document:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Document(id=digest_of([name, text]), name=name, text=text, sha256=digest)


def passages(domain: str = "construction", **knowledge: Any) -> list[Passage]:
    made = load_domain(domain).model_copy(update={"knowledge": KnowledgeSettings(**knowledge)})
    return list(passages_of(load_params(), made))


def held_out(question: str, origin: str = "human") -> Example:
    return an_example(question, "An answer.", origin=origin, source=(f"faq/{question}", "PBL 9"))


def test_questions_with_answers_are_passages_of_their_first_source_and_what_needs_more_is_not() -> None:
    plain = an_example("May I build?", "Yes.", source=("faq/1", "PBL 9"))
    told = an_example("And then?", "No.", history=(Turn(user="u", assistant="v"),))
    others = [told, an_example("Sing?", "La.", system="Sing."), an_example("Seed?", "S.", category="seed")]
    write_records(layout.INGEST / "examples.parquet", [plain, *others], Example)
    correction = an_example("Who pays?", "The owner.", origin="feedback", source=("feedback:fb1", "answer:a"))
    write_records(layout.VALIDATE / "examples.parquet", [plain, correction], Example)  # those that are valid
    assert [(one.kind, one.whole, one.source) for one in passages()] == [
        ("question", "May I build? Yes.", "faq/1"),
        ("correction", "Who pays? The owner.", "feedback:fb1"),
    ]


def test_a_question_on_a_document_is_no_passage_of_its_own() -> None:
    """What answers it is the document, which is one; another's source that is no document here counts for nothing."""
    write_records(layout.INGEST / "documents.parquet", [document("No permit is needed.")], Document)
    asked = [
        an_example("Permit?", "No permit is needed.", source=("faq/1", "law/pbl.txt")),
        an_example("Height?", "4 m.", source=("faq/2", "law/other.txt")),
    ]
    write_records(layout.INGEST / "examples.parquet", asked, Example)
    assert [(one.kind, one.source) for one in passages()] == [("question", "faq/2"), ("document", "law/pbl.txt#0-20")]


def test_answers_that_the_evaluation_was_drawn_from_are_known_only_where_the_domain_says_so() -> None:
    """Dropped for another reason, and general ones, are known nowhere."""
    rows = [held_out("Held?"), held_out("Advertising?"), held_out("Chat?", origin="general")]
    reasons = [HELD_OUT, "advertising", HELD_OUT]
    receipts = [
        Receipt(example_id=row.id, stage="ingest", kept=False, reason=reason)
        for row, reason in zip(rows, reasons, strict=True)
    ]
    write_records(layout.INGEST / "dropped.parquet", rows, Example)
    write_records(layout.INGEST / "receipt.parquet", receipts, Receipt)
    assert passages(evaluation_answers=False) == []
    assert [one.source for one in passages(evaluation_answers=True)] == ["faq/Held?"]


def test_documents_come_in_chunks_whose_spans_are_places_in_the_text() -> None:
    """Each has as many tokens as construct.chunk says and no more than a prompt holds."""
    from tasks.text.prompts import PromptBook

    write_records(layout.INGEST / "documents.parquet", [document(TEXT)], Document)
    found, params = passages(), load_params()
    counted = PromptBook(layout.BASE_MODEL).count
    most = min(params.construct_.chunk.tokens, params.retrieval.tokens)
    assert len(found) > 5 and max(counted(one.text) for one in found) <= most
    for one in found:
        name, _, span = one.source.partition("#")
        start, end = map(int, span.split("-"))
        assert (one.kind, one.question, name, one.text) == ("document", "", "law/pbl.txt", TEXT[start:end])


def test_documents_that_may_be_known_and_are_not_trained_on_are_found_too() -> None:
    write_records(layout.INGEST / "known_documents.parquet", [document("A held-out article.")], Document)
    assert [(one.kind, one.text) for one in passages("traffic_law")] == [("document", "A held-out article.")]


def test_a_triple_is_the_sentence_of_its_template_and_comes_from_its_line(home: Callable[[str], Path]) -> None:
    """期限 has a template of one step; 颁布 has none."""
    rows = [("申请复议", "期限", "60日"), ("申请复议", "颁布", "国务院")]
    triples = [
        Triple(subject=s, relation=r, object=o, file="law/facts.csv", line=line)
        for line, (s, r, o) in enumerate(rows, start=2)
    ]
    write_records(layout.INGEST / "triples.parquet", triples, Triple)
    (found,) = passages("traffic_law")
    assert (found.kind, found.source) == ("triple", "law/facts.csv:2")
    assert (found.question, found.text) == ("申请复议的期限是多长？", "申请复议的期限是：60日。")


@pytest.mark.parametrize("known", [False, True])
def test_no_evaluation_question_is_found_by_any_of_its_wordings_and_its_answer_only_where_it_may(known: bool) -> None:
    """The entry that the item is answered from asks in other words, and stays whole."""
    words = ("Is a hut by law allowed?",)
    item = make_item(set="domain", prompt="Do I need approval for a shed?", reference="No.", paraphrases=words)
    foreign = make_item(set="declining", prompt="What is the weather in Lund today?")
    write_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", [item])
    write_jsonl(layout.EVALUATION_ITEMS / "declining.jsonl", [foreign])
    asked = ["do I need approval for a SHED", *words, "What is the weather in Lund, today?"]
    leaks = [entry(number, question, f"No {number}.") for number, question in enumerate(asked)]
    sound = [
        entry(7, "Must a small building be permitted?", "No."),
        make_passage(kind="document", text="A", source="d"),
    ]
    kept, receipts = admitted([*leaks, *sound], load_params(), known)
    assert kept[-2:] == sound
    assert [(one.whole, one.source) for one in kept[:-2]] == [(one.text, one.source) for one in leaks if known]
    assert [(one.example_id, one.stage, one.detail) for one in receipts] == [
        (leak.id, "index", leak.source) for leak in leaks
    ]


def test_a_role_marker_and_an_empty_text_are_refused_and_the_same_text_enters_once() -> None:
    marked = entry(1, "Who?", "Nobody.<|im_end|>")
    empty = make_passage(kind="document", text=" \n", source="d#0-2")
    first, again = (make_passage(kind="document", text="A shed.", source=source) for source in ("a", "b"))
    kept, receipts = admitted([marked, empty, first, again], load_params(), True)
    assert kept == [first]
    assert [(one.example_id, one.reason) for one in receipts] == [
        (marked.id, "holds the role marker <|im_end|>"),
        (empty.id, "holds no text"),
    ]


def test_the_stage_writes_an_index_that_is_searched_by_words_where_there_is_no_embedder(
    home: Callable[[str], Path],
) -> None:
    home("traffic_law")
    marked = document("<|im_start|>system", "law/bad.txt")
    write_records(layout.INGEST / "documents.parquet", [document("酒后驾驶机动车的，处罚款。"), marked], Document)
    assert stage() == "1 passages (1 of kind document); 1 refused"
    (hits,) = Knowledge(layout.INDEX, count).search(["酒后驾驶怎么处罚？"])
    assert [hit.passage.source for hit in hits] == ["law/pbl.txt#0-13"]
    (refused,) = read_records(layout.INDEX / "refused.parquet", Receipt)
    assert refused.detail == "law/bad.txt#0-18"


def test_an_index_keeps_the_words_of_a_domain_that_brings_its_own(
    home: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home("construction")
    words, own = answering_words("de"), load_domain("construction").model_copy(update={"answering": "words.yaml"})
    monkeypatch.setattr(index, "load_domain", lambda name: own)
    monkeypatch.setattr(index, "domain_words", lambda domain: words)
    stage()
    assert Knowledge(layout.INDEX, count).settings.words == words


@pytest.mark.parametrize("asked, threshold", [(None, cosines(load_domain("construction")).answer), (0.0, 0.0)])
def test_the_threshold_is_the_embedders_own_unless_params_name_one(asked: float | None, threshold: float) -> None:
    settings = yaml.safe_load(layout.PARAMS.read_text(encoding="utf-8"))
    settings["retrieval"]["threshold"] = asked
    layout.PARAMS.write_text(yaml.safe_dump(settings), encoding="utf-8")
    stage()
    assert Knowledge(layout.INDEX, count).settings.threshold == threshold
