"""Self-KV: every answer is what its triples say, every question can be answered, every example leads to its lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.records import Triple
from tasks.core.settings import SettingsError
from tasks.corpus.construct.self_kv import Fact, SelfKv, Templates, load_templates, tells_answer
from tasks.corpus.teacher.teacher import Reply
from tests.said_teacher import SaidTeacher, at_work

ONE = {"path": ["made by"], "questions": ["Who made {subject}?", "By whom is {subject}?"], "answers": ["{object}."]}
TWO = {
    "path": ["part of", "made by"],
    "questions": ["Who made what {subject} is part of?"],
    "answers": ["{via} was made by {object}."],
}


def triples(*facts: tuple[str, str, str]) -> list[Triple]:
    return [
        Triple(subject=s, relation=r, object=o, file="graph/g.csv", line=line)
        for line, (s, r, o) in enumerate(facts, start=2)
    ]


def worded(*templates: dict[str, Any], **fields: Any) -> Templates:
    return Templates.model_validate({"templates": list(templates), **fields})


def build(
    root: Path, facts: list[Triple], templates: Templates, wanted: int = 100, teacher: Any = None, **changes: Any
) -> SelfKv:
    built = at_work(SelfKv, root, teacher, **changes)
    built.build(facts, templates, wanted)
    return built


def made(root: Path, facts: list[Triple], *templates: dict[str, Any], **fields: Any) -> SelfKv:
    return build(root, facts, worded(*templates, **fields))


LAW = triples(("Article 1", "part of", "Road Act"), ("Road Act", "made by", "Congress"))


def test_one_triple_gives_a_question_that_leads_back_to_its_line(root: Path) -> None:
    built = made(root, LAW, ONE)
    assert {e.instruction for e in built.examples} == {"Who made Road Act?", "By whom is Road Act?"}
    assert {e.output for e in built.examples} == {"Congress."}
    example = built.examples[0]
    assert (example.origin, example.category, example.language) == ("self_kv", "made by", "en")
    assert example.source == ("graph/g.csv:3",)
    assert example.evidence == "Road Act | made by | Congress"
    assert [(r.example_id, r.kept, r.score) for r in built.receipts] == [(e.id, True, 1.0) for e in built.examples]


def test_two_triples_that_share_a_node_give_a_question_over_both(root: Path) -> None:
    (example,) = made(root, LAW, TWO).examples
    assert example.instruction == "Who made what Article 1 is part of?"
    assert example.output == "Road Act was made by Congress."
    assert example.source == ("graph/g.csv:2", "graph/g.csv:3")
    assert example.evidence == "Article 1 | part of | Road Act\nRoad Act | made by | Congress"
    assert example.category == "part of/made by"


def test_a_relation_is_walked_backwards_too(root: Path) -> None:
    back = {"path": ["^made by"], "questions": ["What did {subject} make?"], "answers": ["{object}"]}
    (example,) = made(root, LAW, back).examples
    assert (example.instruction, example.output) == ("What did Congress make?", "Road Act")


def test_all_answers_are_given_or_the_question_is_not_asked(root: Path) -> None:
    facts = triples(("Act", "made by", "Senate"), ("Act", "made by", "House"), ("Act", "made by", "House"))
    built = made(root, facts, ONE | {"max_answers": 2}, joiner=" and ")
    assert {e.output for e in built.examples} == {"Senate and House."}
    assert built.examples[0].source == ("graph/g.csv:2", "graph/g.csv:3")  # the fourth line says nothing new
    few = made(root, facts, ONE)
    assert (few.examples, few.skipped) == ([], Counter({"more than 1 answers: made by": 1}))


def test_an_ambiguous_middle_is_not_asked_over(root: Path) -> None:
    facts = [*LAW, *triples(("Article 1", "part of", "Code"))]
    built = made(root, facts, TWO)
    assert (built.examples, built.skipped) == ([], Counter({"ambiguous middle: part of made by": 1}))


def test_cycles_end_and_give_no_question_about_themselves(root: Path) -> None:
    facts = triples(("a", "near", "b"), ("b", "near", "a"), ("c", "near", "c"), ("d", "near", "d"), ("d", "near", "e"))
    one = {"path": ["near"], "questions": ["What is near {subject}?"], "answers": ["{object}"]}
    two = {"path": ["near", "near"], "questions": ["What is near what is near {subject}?"], "answers": ["{object}"]}
    built = made(root, facts, one, two)
    said = {(e.instruction.rpartition(" ")[2], e.output) for e in built.examples}
    assert said == {("a?", "b"), ("b?", "a"), ("d?", "e")}
    assert built.skipped == Counter({"leads back to itself: near near": 3, "ambiguous middle: near near": 1})


def test_a_question_that_tells_its_answer_is_dropped_with_a_receipt(root: Path) -> None:
    built = made(root, triples(("Act of Congress", "made by", "congress")), ONE)
    assert built.examples == []
    assert {d.reason for d in built.dropped} == {"the question tells its answer"}
    assert [(r.example_id, r.kept) for r in built.receipts] == [(d.id, False) for d in built.dropped]


@pytest.mark.parametrize(
    "question, answer, tells",
    [
        ("Is an act a law?", "Act", True),
        ("Is it a fact?", "act", False),
        ("Is it Åcta?", "cta", False),
        ("《公路法》由谁制定？", "公路法", True),
        ("第9条属于9A类吗？", "9", True),
        ("第19条属于哪一类？", "9", False),
    ],
)
def test_an_answer_is_told_by_words_of_its_own(question: str, answer: str, tells: bool) -> None:
    assert tells_answer(question, Fact(subject="x", via="", objects=(answer,), triples=())) == tells


def many(count: int) -> list[Triple]:
    parts = [(f"Article {n}", "part of", f"Act {n % 7}") for n in range(count)]
    makers = [(f"Act {n}", "made by", f"Body {n}") for n in range(7)]
    return triples(*parts, *makers)


def test_the_budget_and_the_share_of_two_hops_are_kept_where_the_graph_gives_enough(root: Path) -> None:
    part = {"path": ["part of"], "questions": ["Where is {subject}?"], "answers": ["{object}"]}
    built = build(root, many(50), worded(ONE, part, TWO), 20, two_hop_share=0.3)
    assert Counter("/" in e.category for e in built.examples) == {False: 14, True: 6}
    # Relations take turns, though one has 50 triples and the other 7.
    assert Counter(e.category for e in built.examples if "/" not in e.category) == {"made by": 7, "part of": 7}


def test_what_one_kind_lacks_the_other_gives_and_nothing_is_padded(root: Path) -> None:
    built = build(root, many(4), worded(ONE, TWO), 12, two_hop_share=0.9)
    assert Counter("/" in e.category for e in built.examples) == {False: 8, True: 4}  # 11 and 1 were asked for
    everything = build(root, many(4), worded(ONE, TWO), 1000)
    assert len(everything.examples) == 4 + 7 * 2  # each two-hop fact in one wording, each one-hop fact in two


def test_every_fact_is_asked_once_before_any_is_asked_again(root: Path) -> None:
    built = build(root, many(0), worded(ONE), 9)
    assert [e.evidence for e in built.examples[:2]] == [e.evidence for e in built.examples[7:]]
    assert len({e.evidence for e in built.examples[:7]}) == 7


def test_the_same_triples_and_seed_give_the_same_examples_and_another_seed_others(root: Path) -> None:
    facts = many(40)

    def ids(seed: int, order: list[Triple]) -> list[str]:
        return [e.id for e in build(root, order, worded(ONE, TWO), 10, seed=seed).examples]

    assert ids(1, facts) == ids(1, facts) == ids(1, facts[::-1])
    assert ids(1, facts) != ids(2, facts)


PROMPT = "Say anew: {question}"


@pytest.mark.parametrize(
    "reply, problem",
    [
        (Reply(text="Road Act: who wrote it?", finish_reason="stop"), ""),
        (Reply(error="timed out"), "no reply"),
        (Reply(text="Road Act: who", finish_reason="length"), "cut short"),
        (Reply(text=" ", finish_reason="stop"), "empty reply"),
        (Reply(text="Who wrote the law?", finish_reason="stop"), "the reply does not name what it asks about"),
        (Reply(text="Did Congress make Road Act?", finish_reason="stop"), "the reply tells the answer"),
        (Reply(text="Road Act?\nCongress.", finish_reason="stop"), "the reply is more than a question"),
        (Reply(text="Road Act? " * 20, finish_reason="stop"), "the reply is more than a question"),
    ],
)
def test_the_teacher_s_words_are_used_only_where_they_ask_the_same(root: Path, reply: Reply, problem: str) -> None:
    teacher = SaidTeacher(lambda asked: reply)
    once = ONE | {"questions": ["Who made {subject}?"]}
    built = build(root, LAW, worded(once, paraphrase=PROMPT), teacher=teacher, paraphrase=True)
    (example,), (receipt,) = built.examples, built.receipts
    assert teacher.asks[0].messages[0].content == "Say anew: Who made Road Act?"
    assert example.instruction == ("Who made Road Act?" if problem else reply.text)
    assert receipt.detail == (f"the template's words: {problem}" if problem else "the teacher's words")
    assert (example.output, example.source, receipt.example_id) == ("Congress.", ("graph/g.csv:3",), example.id)


@pytest.mark.parametrize(("prompt", "needed"), [("", "`paraphrase` among the templates"), (PROMPT, "needs a teacher")])
def test_rewording_needs_a_teacher_and_a_prompt(root: Path, prompt: str, needed: str) -> None:
    with pytest.raises(SettingsError, match=needed):
        build(root, LAW, worded(ONE, paraphrase=prompt), paraphrase=True)


NODE = st.sampled_from("甲乙丙丁ab")
GRAPHS = st.lists(st.tuples(NODE, st.sampled_from(["made by", "part of"]), NODE), max_size=25)


@given(facts=GRAPHS, count=st.integers(0, 30), share=st.floats(0, 1))
def test_whatever_the_graph_answers_are_complete_and_traceable(
    root: Path, facts: list, count: int, share: float
) -> None:
    rows = triples(*facts)
    known = {(t.subject, t.relation, t.object) for t in rows}
    one = {"path": ["made by"], "questions": ["1 {subject} 谁"], "answers": ["{object}"], "max_answers": 9}
    two = TWO | {"max_answers": 9, "questions": ["2 {subject} 谁"], "answers": ["{object}"]}
    built = build(root, rows, worded(one, two, joiner=" "), count, two_hop_share=share)
    assert len(built.examples) <= count
    assert len({e.id for e in built.examples}) == len(built.examples)
    for example in built.examples:
        hops, subject = example.instruction.split()[:2]
        middle = {subject} if hops == "1" else {o for s, r, o in known if (s, r) == (subject, "part of")}
        assert len(middle) == 1
        ends = {o for s, r, o in known if s in middle and r == "made by"} - {subject} - middle
        assert set(example.output.split()) == ends
        lines = [int(source.rpartition(":")[2]) for source in example.source]
        assert example.evidence.splitlines() == [" | ".join(facts[line - 2]) for line in lines]


TEMPLATE = {"path": ["is"], "questions": ["{subject}?"], "answers": ["{object}."]}


def load(path: Path, *templates: dict[str, Any]) -> Templates:
    path.write_text(yaml.safe_dump({"zh": {"templates": list(templates)}}), encoding="utf-8")
    return load_templates(path, "zh")


def test_every_mistake_is_listed_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(
            tmp_path / "t.yaml",
            TEMPLATE | dict(questions=["Who?"]),
            TEMPLATE | dict(answers=["{via} {object}", "{subject}"]),
            TEMPLATE | dict(path=["a", "b", "c"]),
            TEMPLATE | dict(surplus=1),
        )
    text = str(caught.value)
    assert "zh.templates.0: 'Who?' lacks {subject}" in text
    assert "zh.templates.1: '{via} {object}': unknown {via}; '{subject}' lacks {object}" in text
    assert "zh.templates.2.path" in text
    assert "zh.templates.3.surplus: unknown key" in text


@pytest.mark.parametrize("text", ["{subject.__class__}", "{subject[0]}", "{subject!r}", "{subject:>10}", "{", "{0}"])
def test_a_placeholder_is_a_name_and_nothing_else(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"zh\.templates\.0"):
        load(tmp_path / "t.yaml", TEMPLATE | dict(questions=["{subject}" + text]))


@pytest.mark.parametrize(
    "content, cause",
    [
        (b"en: {}", "no templates for the language 'zh'"),
        (b"[]", "no templates for the language 'zh'"),
        (b"zh: [", "not readable as YAML"),
        (b"\xff\xfe", "not readable as YAML"),
        (yaml.safe_dump({"zh": {"templates": [TEMPLATE], "paraphrase": "Anew."}}).encode(), r"lacks \{question\}"),
        (yaml.safe_dump({"zh": {"templates": [TEMPLATE] * 2}}).encode(), "path is stands here 2 times"),
        (None, r"t\.yaml: the file does not exist"),
    ],
)
def test_a_file_that_cannot_serve_says_why(tmp_path: Path, content: bytes | None, cause: str) -> None:
    if content is not None:
        (tmp_path / "t.yaml").write_bytes(content)
    with pytest.raises(SettingsError, match=cause):
        load_templates(tmp_path / "t.yaml", "zh")


@given(text=st.text(max_size=20))
def test_no_text_of_a_template_breaks_the_check(text: str) -> None:
    try:
        found = Templates.model_validate({"templates": [TEMPLATE | dict(questions=[text])]})
    except ValueError:
        return
    assert found.templates[0].questions[0].format(subject="x")
