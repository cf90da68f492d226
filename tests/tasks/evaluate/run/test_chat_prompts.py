"""OpenCompass's prompts as conversations, and which part of a template is scored."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.evaluate.run.chat_prompts import ChatParser, TemplateRefused, scored_apart
from tasks.text.prompts import PromptBook, PromptError
from tests.small_tokenizer import PHI, lay_tokenizer

BEGIN, END = {"section": "round", "pos": "begin"}, {"section": "round", "pos": "end"}
SHOTS = [{"section": "ice", "pos": "begin"}, {"role": "HUMAN", "prompt": "1+1"}, {"role": "BOT", "prompt": "2"},
         {"section": "ice", "pos": "end"}, "\n"]  # fmt: skip


def human(text: str) -> dict[str, str]:
    return {"role": "HUMAN", "prompt": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "BOT", "prompt": text}


@pytest.fixture(scope="module")
def parser(tmp_path_factory: pytest.TempPathFactory) -> ChatParser:
    """Under the system text `Be brief.`, with a template that writes `<|role|>text<|end|>`."""
    return ChatParser(PromptBook(lay_tokenizer(tmp_path_factory.mktemp("book"), PHI)), "Be brief.", "\x1e")


@pytest.mark.parametrize(
    ("prompt", "mode", "expected"),
    [
        ("2+2", "gen", "<|system|>Be brief.<|end|><|user|>2+2<|end|><|assistant|>"),
        # A last round of BOT is the place of the answer, whatever the template begins it with.
        ([BEGIN, human("2+2"), bot("It is"), END], "gen", "<|system|>Be brief.<|end|><|user|>2+2<|end|><|assistant|>"),
        (
            [*SHOTS, BEGIN, human("2+2"), bot(""), END],
            "gen",
            "<|system|>Be brief.<|end|><|user|>1+1<|end|><|assistant|>2<|end|><|user|>2+2<|end|><|assistant|>",
        ),
        (
            [{"role": "SYSTEM", "fallback_role": "HUMAN", "prompt": "Count."}, human("Now"), human("2+2")],
            "gen",
            "<|system|>Be brief.\nCount.<|end|><|user|>Now\n2+2<|end|><|assistant|>",
        ),
        (
            [BEGIN, human("2+2"), bot(" 4 "), END],
            "ppl",
            "<|system|>Be brief.<|end|><|user|>2+2<|end|><|assistant|>\x1e4",
        ),
        # Few-shot examples by themselves are only written down.
        (SHOTS, "ppl", "1+1\n2"),
        ("1+1", "ppl", "1+1"),
    ],
)
def test_rounds_become_turns_of_the_models_own_template(
    parser: ChatParser, prompt: Any, mode: str, expected: str
) -> None:
    found = parser.parse_template(prompt, mode)
    assert found == expected
    assert parser.parse_template([prompt, prompt], mode) == [found, found]


@pytest.mark.parametrize(
    ("prompt", "mode", "cause"),
    [
        ([human("2+2")], "ppl", "does not say which part of it is the answer"),
        ([bot("4")], "gen", "asks nothing"),
        ([human("2<|end|>2")], "gen", "special token '<|end|>'"),
        ([human("2+2"), bot("4<|end|>")], "ppl", "special token '<|end|>'"),
        ([human("2\x1e2")], "gen", "U+001E"),
    ],
)
def test_a_prompt_that_could_be_read_otherwise_is_refused(
    parser: ChatParser, prompt: Any, mode: str, cause: str
) -> None:
    with pytest.raises(PromptError) as refused:
        parser.parse_template(prompt, mode)
    assert cause in str(refused.value)


@pytest.mark.parametrize(
    ("template", "question", "answers"),
    [
        # The answer is what the labels do not have in common at the beginning.
        ({"A": "{q}\nAnswer: A", "B": "{q}\nAnswer: B"}, "{q}\nAnswer:", ["A", "B"]),
        # A column's name is never cut in two.
        ({0: "Q: {goal} {sol1}", 1: "Q: {goal} {sol2}"}, "Q: {goal}", ["{sol1}", "{sol2}"]),
        ({0: {"round": [human("{ctx} {A}.")]}, 1: {"round": [human("{ctx} {B}.")]}}, "{ctx}", ["{A}.", "{B}."]),
    ],
)
def test_templates_of_one_text_a_label_are_cut_where_they_part(
    template: dict[Any, Any], question: str, answers: list[str]
) -> None:
    found = scored_apart(template)
    assert [one["round"] for one in found.values()] == [[human(question), bot(answer)] for answer in answers]


def test_a_template_that_ends_with_bot_is_left_as_it_is() -> None:
    template = {"A": {"round": [human("{q}"), bot("A")]}, "B": {"round": [human("{q}"), bot("B")]}}
    assert scored_apart(template) == template


@pytest.mark.parametrize("template", [{0: "{sol1}", 1: "{sol2}"}, {0: "{q} yes", 1: "{q}"}])
def test_templates_that_share_no_question_are_refused_with_what_to_do(template: dict[Any, Any]) -> None:
    with pytest.raises(TemplateRefused, match="write the answer as a round of BOT"):
        scored_apart(template)
