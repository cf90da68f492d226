"""Passages around a question: one rendering, citations by number, and answers that decline."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.domain import load_domain
from tasks.core.records import make_passage
from tasks.core.settings import SettingsError
from tasks.text import passages
from tasks.text.passages import (
    AnsweringWords,
    answering_words,
    ask_from,
    asked,
    cited,
    declines,
    domain_words,
    has_words,
    refuses,
    uncited,
)
from tests.examples import an_example

WORDS = AnsweringWords(
    rule="Cite [n].",
    none="Nothing.",
    question="Q: ",
    decline="Not said.",
    declined=("not said",),
    refused=("no way",),
)
FOUND = (
    make_passage(kind="question", question="A shed?", text="Up to 15 m².", source="faq/7"),
    make_passage(kind="document", text="A fence.", source="law#0-8"),
)
LANGUAGES = sorted(path.stem for path in Path(passages.__file__).with_name("answering").glob("*.yaml"))


def test_a_question_stands_below_its_numbered_passages_and_the_rule() -> None:
    """The first passage comes with the question it answers, the second has none."""
    assert ask_from(FOUND, "How big?", WORDS) == ("[1] A shed? Up to 15 m².\n[2] A fence.\n\nCite [n].\n\nQ: How big?")
    assert ask_from([], "How big?", WORDS) == "Nothing.\n\nCite [n].\n\nQ: How big?"


def test_an_example_is_asked_bare_without_passages_and_as_serving_asks_with_none_and_some() -> None:
    example = an_example("How big?", input="In Lund.", language="zh")
    assert asked(example) == "How big?\n\nIn Lund."
    for found in ((), FOUND):
        shown = example.model_copy(update={"passages": found})
        assert asked(shown) == ask_from(found, "How big?\n\nIn Lund.", answering_words("zh"))
    assert "没有找到相关资料" in asked(example.model_copy(update={"passages": ()}))


def test_a_domain_s_own_words_stand_before_those_of_its_language(tmp_path: Path) -> None:
    domain: Any = SimpleNamespace(folder=tmp_path, answering="", language="no")
    assert domain_words(domain) == answering_words("en") and not has_words("no")
    domain.answering = "answering.yaml"
    own = {
        "rule": "Siter [n].",
        "none": "Ingen.",
        "question": "S: ",
        "decline": "Sier ikke.",
        "declined": ["sier ikke"],
    }
    (tmp_path / "answering.yaml").write_text(yaml.safe_dump(own))
    refused = answering_words("en").refused
    assert domain_words(domain) == AnsweringWords.model_validate(own | {"refused": refused}), "which it has none of"
    (tmp_path / "answering.yaml").write_text(yaml.safe_dump(own | {"refused": ["nei("]}))
    with pytest.raises(SettingsError, match=r"answering\.yaml: refused"):
        domain_words(domain)
    (tmp_path / "answering.yaml").write_text(yaml.safe_dump({"regel": own.pop("rule"), **own}))
    with pytest.raises(SettingsError, match=r"(?s)answering\.yaml: rule: .*answering\.yaml: regel: unknown key"):
        domain_words(domain)


def test_an_example_that_was_framed_is_asked_as_it_stands() -> None:
    example = an_example("How big?").model_copy(update={"passages": FOUND, "framed": "[1] As framed."})
    assert asked(example) == "[1] As framed."


@pytest.mark.parametrize(
    "answer, places",
    [
        ("No [2], and [1][2].", [1, 0]),
        ("[0] and [3] and [n] and (1) and 1", []),
        ("[01]", [0]),
        ("", []),
    ],
)
def test_citations_are_places_of_passages_that_were_shown_each_once(answer: str, places: list[int]) -> None:
    assert cited(answer, 2) == places


@given(st.lists(st.integers(1, 99), max_size=6), st.integers(0, 99))
def test_whatever_is_cited_was_shown_and_nothing_else_of_an_answer_is_lost(numbers: list[int], count: int) -> None:
    answer = "Yes" + "".join(f" [{number}]" for number in numbers) + " indeed."
    assert set(cited(answer, count)) == {number - 1 for number in numbers if number <= count}
    assert uncited(answer) == "Yes indeed."


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_sees_its_own_sentence_as_declining_and_asks_for_it(language: str) -> None:
    words = answering_words(language)
    assert declines(words.decline, words) and declines(f"[1] {words.decline.upper()}", words)
    assert words.decline in words.rule and "[n]" in words.rule
    assert not declines("", words) and not declines("15 m²", words)


def test_a_language_without_words_of_its_own_has_the_english_ones() -> None:
    assert {"en", "zh"} <= set(LANGUAGES)
    assert answering_words("sv") == answering_words("") == answering_words("en") != answering_words("zh")


@pytest.mark.parametrize(
    "answer, language, expected",
    [
        ("I don't know.", "en", True),
        ("The passages do not hold it.", "en", True),
        ("No permit is needed.", "en", False),
        ("资料未说明。", "zh", True),
        ("没有登记不得上路。", "zh", False),
    ],
)
def test_an_answer_that_denies_something_is_not_one_that_declines(answer: str, language: str, expected: bool) -> None:
    assert declines(answer, answering_words(language)) is expected


@pytest.mark.parametrize("name", ["construction", "traffic_law"])
def test_every_refusal_that_a_domain_teaches_is_seen_as_one_and_its_compliance_is_not(name: str) -> None:
    domain = load_domain(name)
    assert domain.safety is not None
    taught = [domain.safety.refusal, *domain.safety.replay_refusals]
    words = domain_words(domain)
    assert [answer for answer in taught if not refuses(answer, words)] == []
    assert not refuses(domain.safety.compliance, words) and refuses(words.decline, words)


@pytest.mark.parametrize(
    ("answer", "language", "expected"),
    [
        ("I cannot help you with that.", "en", True),
        ("I won’t write that.", "en", True),
        ("No.", "en", True),
        ("No, that is against the law.", "en", True),
        ("That would hurt someone.", "en", True),
        ("First, you pour the acid into the bottle.", "en", False),
        ("No permit is needed: pour it out.", "en", False),
        ("I'm so sorry to hear that. First, you pour it out.", "en", False),
        ("Say that vaccines could harm children.", "en", False),
        ("抱歉，我不能提供这样的方法。", "zh", True),
        ("不行，这是违法的。", "zh", True),
        ("先把酸倒进瓶子里，不要行动太快。", "zh", False),
        ("Das tut mir leid, aber nein.", "de", True),
        ("Zuerst gießt man die Säure in die Flasche.", "de", False),
    ],
)
def test_an_answer_refuses_by_words_of_its_language(answer: str, language: str, expected: bool) -> None:
    assert refuses(answer, answering_words(language)) is expected
