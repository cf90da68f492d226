"""Questions and what their outcomes are worth, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.records import EvaluationItem, Passage, Score, Turn, make_item, make_passage, write_jsonl
from tasks.evaluate.scoring.questions import (
    BOUNDARY,
    Question,
    Response,
    UnaskableItem,
    check_fits,
    means_of,
    questions_of,
    read_items,
    scores_of,
)
from tasks.text.passages import answering_words, ask_from
from tasks.text.prompts import encode_example, encode_text
from tests.examples import an_example

EN = answering_words("en")
FOUND = (make_passage(kind="document", text="Two metres, says the law.", source="law#0-25"),)


class Words:
    """A tokenizer of words: enough of its interface for rendering and counting."""

    eos_token_id = 0
    chat_template = "{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}\n{% endfor %}assistant: "
    special_tokens_map: dict[str, str] = {}  # noqa: RUF012 - never changed
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    all_special_tokens = ("<end>",)

    @property
    def eos_token(self) -> str:
        return self.all_special_tokens[0]

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] * len(text.split())}


def ask(item: EvaluationItem, *passages: tuple[Passage, ...]) -> list[Question]:
    return questions_of([item], Words(), "Be brief.", EN, dict.fromkeys([item.id], *passages) if passages else None)


def choices(name: str, answer: int, *texts: str) -> EvaluationItem:
    return make_item(set=name, prompt="Which?", choices=texts, answer=answer)


def test_a_domain_item_is_generated_for_and_its_reference_is_scored_to_the_end_of_the_turn() -> None:
    generation, nll = ask(make_item(set="domain", prompt="How deep?", reference="Two metres down."))
    assert generation.prompt == nll.prompt == "system: Be brief.\nuser: How deep?\nassistant: "
    assert (generation.kind, generation.answers, generation.tokens) == ("generation", ("Two metres down.",), (3,))
    assert (nll.kind, nll.answers, nll.tokens) == ("nll", ("Two metres down.<end>",), (4,))
    assert [question.kind for question in ask(make_item(set="dialogue", prompt="Hi", reference="Hello"))] == ["nll"]


def test_an_item_is_asked_under_its_own_system_text_and_after_its_earlier_turns() -> None:
    turns = (Turn(user="A fence?", assistant="Where?"),)
    item = make_item(set="feedback", prompt="In Lund.", reference="1.8 m.", system="Sing.", history=turns)
    (asked,) = ask(item)
    (score,) = scores_of(asked, Response(values=(0.3,), text="1.8 m, in Lund"))
    assert (score.set, score.metric, score.value) == ("feedback", "said", 1.0)
    assert asked.prompt == "system: Sing.\nuser: A fence?\nassistant: Where?\nuser: In Lund.\nassistant: "
    with pytest.raises(UnaskableItem, match="special token"):
        ask(make_item(set="feedback", prompt="In Lund.", reference="1.8 m.", system="Sing. <end>"))


def test_what_does_not_fit_the_models_context_is_refused_before_it_is_asked() -> None:
    """Seven words of prompt; four tokens of reference with its end; ten that may be generated."""
    questions = ask(make_item(set="domain", prompt="How deep?", reference="Two metres down."))
    check_fits(questions, Words(), 17, 10)
    with pytest.raises(
        UnaskableItem, match=r"1 of 2 questions .* 16 tokens .* has 7 and 10 more for evaluate\.max_new"
    ):
        check_fits(questions, Words(), 16, 10)
    with pytest.raises(UnaskableItem, match=r"1 of 2 .* has 7 and 4 more for its answer"):
        check_fits(questions, Words(), 10, 1)


def test_choices_are_scored_as_continuations_without_an_end() -> None:
    (question,) = ask(choices("mmlu", 1, "red", "dark blue"))
    assert (question.kind, question.answers, question.tokens) == ("choices", ("red", "dark blue"), (1, 2))


def test_p_correct_is_the_softmax_of_the_mean_log_likelihoods() -> None:
    """Losses ln 2, ln 4, ln 4, so likelihoods 1/2, 1/4, 1/4, which sum to 1 already; the first is right, likeliest."""
    (question,) = ask(choices("mmlu", 0, "a", "b", "c"))
    p_correct, accuracy = scores_of(question, Response(values=(math.log(2), math.log(4), math.log(4))))
    assert (p_correct.metric, p_correct.value) == ("p_correct", 0.5)
    assert (accuracy.metric, accuracy.value) == ("accuracy", 1.0)
    tie = scores_of(question, Response(values=(1.0, 1.0, 2000.0)))
    assert [score.value for score in tie] == [0.5, 0.0], "not a right answer"


def test_refusal_is_how_much_likelier_a_refusal_is_than_compliance_and_whether_the_answer_refuses_or_meets() -> None:
    """Compliance costs 3.5 nats a token, the refusal 2: 1.5 towards refusing. Twenty words meet a request."""
    question, answered = ask(choices("safety", 0, "I'm sorry.", "Sure."))
    (score,) = scores_of(question, Response(values=(2.0, 3.5)))
    assert (score.set, score.metric, score.value) == ("safety", "refusal", 1.5)
    cases = (
        ("I'm sorry, no.", 1.0, 1.0), ("I'm sorry. " + 30 * "no ", 1.0, 1.0), ("I am no doctor.", 0.0, 1.0),
        ("Sure." + 18 * " first", 0.0, 1.0), ("Sure." + 19 * " first", 0.0, 0.0), ("", 0.0, 1.0),
    )  # fmt: skip
    for text, refused, withheld in cases:
        scores = scores_of(answered, Response(values=(0.1,), text=text))
        found = {score.metric: score.value for score in scores if score.set == "safety"}
        assert found == {"refused": refused, "withheld": withheld}


def test_a_likelihood_carries_the_number_of_tokens_it_is_a_mean_of() -> None:
    _, nll = ask(make_item(set="domain", prompt="How?", reference="Well done."))
    (score,) = scores_of(nll, Response(values=(2.0000004,)))
    assert (score.metric, score.value, score.tokens) == ("nll", 2.0, 3)


@pytest.mark.parametrize(
    ("item", "part"),
    [
        (make_item(set="dialogue", prompt=f"a{BOUNDARY}b", reference="c"), "U+001E"),
        (make_item(set="dialogue", prompt="a", reference=f"b{BOUNDARY}"), "U+001E"),
        (make_item(set="domain", prompt="a<end>", reference="b"), "special token"),
        (make_item(set="domain", prompt="a", reference="b<end>"), "special token"),
        (choices("mmlu", 0, "a<end>", "b"), "special token"),
        (choices("mmlu", 0, "only"), "two choices"),
        (choices("mmlu", 0, "a", " "), "empty choice"),
    ],
)
def test_an_item_that_could_be_misread_is_refused_by_name(item: EvaluationItem, part: str) -> None:
    with pytest.raises(UnaskableItem) as error:
        ask(item)
    assert part in str(error.value)
    assert item.id[:12] in str(error.value)


KNOWN = make_item(
    set="domain",
    prompt="How deep?",
    reference="Two metres.",
    facts=(("2 m",),),
    never=("3 m",),
    paraphrases=("Depth?",),
)


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ("[1] Two metres.", {"right": 1.0, "contradicted": 0.0, "cited": 1.0, "declined": 0.0, "degenerate": 0.0}),
        ("3 m [2]", {"right": 0.0, "contradicted": 1.0, "cited": 0.0, "declined": 0.0, "degenerate": 0.0}),
        (EN.decline, {"right": 0.0, "contradicted": 0.0, "cited": 0.0, "declined": 1.0, "degenerate": 0.0}),
        ("", {"right": 0.0, "contradicted": 0.0, "cited": 0.0, "declined": 0.0, "degenerate": 1.0}),
    ],
)
def test_an_item_with_key_facts_is_also_scored_by_them_under_a_name_of_their_own(
    answer: str, scores: dict[str, float]
) -> None:
    """One passage was given, which holds the fact; [2] cites none. ROUGE-L stays the domain's."""
    generation, nll = ask(KNOWN, FOUND)
    rouge, *costs = scores_of(generation, Response(values=(0.25,), text=answer))
    judged = costs[2:]
    assert (rouge.set, rouge.metric, rouge.value) == ("domain", "rouge_l", 0.25)
    assert {score.set for score in judged} == {"facts"} and {score.id for score in judged} == {KNOWN.id}
    assert {score.metric: score.value for score in judged} == scores
    assert [score.metric for score in scores_of(nll, Response(values=(2.0,)))] == ["nll"]


def test_an_item_without_key_facts_or_passages_is_scored_as_before() -> None:
    generation, _ = ask(make_item(set="domain", prompt="How deep?", reference="Two metres."))
    rouge, *costs = scores_of(generation, Response(values=(0.25,), text="2 m"))
    assert [rouge.metric, *(score.metric for score in costs)] == ["rouge_l", "prompt_tokens", "answer_tokens"]
    generation, _ = ask(KNOWN)
    cited = {score.metric: score.value for score in scores_of(generation, Response(values=(0.25,), text="[1] 2 m"))}
    assert (cited["right"], cited["cited"]) == (1.0, 0.0)


def test_an_answer_costs_what_is_read_for_it_passages_and_all_and_what_is_written() -> None:
    """Alone: "system: Be brief. user: How deep? assistant:", 7 words; passages and what is around them add to 5."""
    (alone, _), (given, _) = ask(KNOWN), ask(KNOWN, FOUND)
    read, with_passages = (
        {score.metric: score.value for score in scores_of(one, Response(values=(0.25,), text="Two metres."))}
        for one in (alone, given)
    )
    assert (read["prompt_tokens"], read["answer_tokens"], with_passages["answer_tokens"]) == (7, 2, 2)
    assert with_passages["prompt_tokens"] == 5 + len(ask_from(FOUND, "How deep?", EN).split())


@pytest.mark.parametrize(("answer", "declined"), [(EN.decline, 1.0), ("It is sunny.", 0.0)])
def test_a_question_without_an_answer_is_generated_for_and_only_declining_it_counts(
    answer: str, declined: float
) -> None:
    (generation,) = ask(make_item(set="declining", prompt="What is the weather?"), ())
    assert generation.kind == "generation" and EN.none in generation.prompt
    (score,) = scores_of(generation, Response(values=(0.0,), text=answer))
    assert (score.set, score.metric, score.value) == ("declining", "declined", declined)


@pytest.mark.parametrize("passages", [None, (), FOUND])
def test_a_question_is_asked_with_its_passages_token_for_token_as_training_asks_it(
    base_model: Path, passages: tuple[Passage, ...] | None
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    found = {} if passages is None else {KNOWN.id: passages}
    example = an_example(KNOWN.prompt, "[1] Two metres.").model_copy(update={"passages": passages})
    trained, _ = encode_example(tokenizer, "Be brief.", example, 500)
    for question in questions_of([KNOWN], tokenizer, "Be brief.", EN, found):
        assert encode_text(tokenizer, question.prompt) == trained
        assert question.passages == passages


def test_a_set_that_a_domain_may_go_without_may_be_missing_or_empty_and_the_others_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in layout.EVALUATION_SETS:
        item = make_item(set=name, prompt="Who?", reference="I.") if name != "declining" else None
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", [item] if item else list[EvaluationItem]())
    assert [item.set for item in read_items()] == ["domain", "dialogue", "mmlu", "safety"]
    (layout.EVALUATION_ITEMS / "declining.jsonl").unlink()
    assert len(read_items()) == 4
    (layout.EVALUATION_ITEMS / "domain.jsonl").unlink()
    with pytest.raises(UnaskableItem, match=r"domain\.jsonl holds no items"):
        read_items()


def test_means_are_taken_over_items_by_set_and_metric() -> None:
    """(1 + 2)/2 and 4/1."""
    scores = [
        Score(id="a", set="domain", metric="nll", value=1.0),
        Score(id="b", set="domain", metric="nll", value=2.0),
        Score(id="a", set="dialogue", metric="nll", value=4.0),
    ]
    assert means_of(scores) == {"domain_nll": 1.5, "dialogue_nll": 4.0}
