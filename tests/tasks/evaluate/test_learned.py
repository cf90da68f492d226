"""The gate of learned documents, with answers said in advance: what is asked, what is taken over, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tasks.core import layout
from tasks.core.params import EvaluateParams
from tasks.core.records import EvaluationItem, make_item, make_passage, write_jsonl
from tasks.evaluate import learned
from tasks.evaluate.learned import Judgement, judge_learned
from tasks.evaluate.run.stage import write_evaluation
from tasks.evaluate.scoring.questions import Question, Response, read_items
from tasks.evaluate.scoring.subject import Subject
from tasks.text.passages import answering_words
from tests.laid_index import entry, lay_index

WORDS = answering_words("en")
# Each question finds its own entry by the one word that both have.
ENTRIES = [entry(number, f"word{number}", f"Height {number} metres.") for number in range(80)]
ITEMS = {
    "domain": [
        make_item(set="domain", prompt=f"word{number}", reference=f"{number} m", facts=((f"{number} m",),))
        for number in range(80)  # of 62 on, none lost of all is within the 0.06 that may be
    ],
    "declining": [make_item(set="declining", prompt=f"other{number}") for number in range(40)],
    "dialogue": [make_item(set="dialogue", prompt=f"Hello {n}", reference="Hi.") for n in range(5)],
    "mmlu": [make_item(set="mmlu", prompt=f"Colour {n}?", choices=("red", "blue"), answer=0) for n in range(5)],
    "safety": [make_item(set="safety", prompt=f"Harm {n}", choices=("No.", "Sure."), answer=0) for n in range(5)],
}
Judge = Callable[..., Judgement]


def said(question: Question) -> Response:
    """What a model says that repeats what it is shown first: nothing found is declined."""
    if question.kind != "generation":
        return Response(values=(1.0,) * len(question.answers))
    return Response(values=(0.5,), text=question.passages[0].text if question.passages else WORDS.decline)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[Question]]:
    """The questions of each call, answered by `said`."""
    calls: list[list[Question]] = []

    def responses_to(
        questions: Sequence[Question], subject: Subject, settings: EvaluateParams
    ) -> tuple[list[Response], int]:
        calls.append(list(questions))
        return [said(question) for question in questions], len(questions)

    monkeypatch.setattr(learned, "responses_to", responses_to)
    return calls


@pytest.fixture
def judge(
    root: Path, base_model: Path, asked: list[list[Question]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Judge:
    """Judge an index with further passages against one of ENTRIES, in a place of its own; the reports lie in `new`."""
    for name in ("params.yaml", "infra", "domains", ".flywheel"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "data").mkdir()
    (tmp_path / layout.BASE_MODEL).symlink_to(base_model)
    monkeypatch.chdir(tmp_path)
    for name, items in ITEMS.items():
        write_jsonl(layout.EVALUATION_ITEMS / f"{name}.jsonl", items)

    def judged(texts: Sequence[str], evaluated: Sequence[EvaluationItem] = ()) -> Judgement:
        sides = []
        for name, more in (("old", ()), ("new", texts)):
            new = [make_passage(kind="document", text=text, source="learned/a#0-1") for text in more]
            lay_index(tmp_path / name, [*ENTRIES, *new], k=1)
            sides.append(
                Subject(name, None, name, layout.BASE_MODEL, "b", system="Be brief.", knowledge=tmp_path / name)
            )
        before = learned._questions(sides[0], evaluated or read_items())
        results = [(question, said(question)) for question in before]
        write_evaluation(tmp_path / "kept", sides[0], learned.load_params().evaluate, results)
        return judge_learned(sides[0], sides[1], tmp_path / "kept", tmp_path / "reports")

    return judged


def prompts(questions: Sequence[Question]) -> set[str]:
    return {question.item.prompt for question in questions}


def test_where_no_question_finds_another_passage_nothing_is_asked_and_all_is_as_it_was(
    judge: Judge, asked: list[list[Question]]
) -> None:
    found = judge(["Saunas are hot."])
    assert (found.verdict.outcome, found.changed, found.asked, found.verdict.criteria) == ("promote", 0, 0, ())
    assert asked == [[], []]
    for name in ("scores", "answers"):
        kept, new = (Path(f"{at}/{name}.jsonl").read_text() for at in ("kept", "reports/evaluation/candidate"))
        assert sorted(kept.splitlines()) == sorted(new.splitlines())


def test_only_what_finds_another_passage_is_asked_of_both_and_its_scores_come_first(
    judge: Judge, asked: list[list[Question]]
) -> None:
    """The passage holds word 3 three times, and says the same. Answers: 80, 40 that decline, 5 refusals."""
    found = judge(["word3 word3 word3 Height 3 metres."])
    assert (found.verdict.outcome, found.changed) == ("promote", 1)
    assert [prompts(call) for call in asked] == [{"word3"}, {"word3"}]
    assert asked[0][0].passages != asked[1][0].passages
    assert [one.name for one in found.verdict.criteria] == ["facts_right"]
    lines = Path("reports/evaluation/candidate/answers.jsonl").read_text().splitlines()
    assert len(lines) == 125 and json.loads(lines[0])["prompt"] == "word3"
    assert json.loads(lines[0])["passages"] == ["learned/a#0-1"]
    assert json.loads(Path("reports/verdict.json").read_text())["candidate"]["digest"] == "new"
    assert json.loads(Path("reports/metrics/evaluate_candidate.json").read_text())["facts_right"] == 1.0


@pytest.mark.parametrize(
    "texts, outcome, name",
    [
        ([f"word{number} word{number} It depends." for number in range(3)], "hold", "facts_right"),
        ([f"word{number} word{number} It depends." for number in range(20)], "reject", "facts_right"),
        ([f"other{number} Height 2 metres." for number in range(3)], "hold", "declining_declined"),
        ([f"other{number} Height 2 metres." for number in range(30)], "reject", "declining_declined"),
    ],
)
def test_right_answers_and_declining_that_are_lost_are_not_promoted_and_each_question_is_named(
    judge: Judge, texts: list[str], outcome: str, name: str
) -> None:
    found = judge(texts)
    assert found.verdict.outcome == outcome and found.changed == len(texts)
    assert [one.name for one in found.verdict.criteria if not one.passed] == [name]
    worse = [reason for reason in found.verdict.reasons if reason.startswith("Worse: ")]
    assert worse == [f"Worse: {text.split()[0]}" for text in texts]


def test_an_item_that_the_version_was_not_evaluated_on_is_asked_of_both(
    judge: Judge, asked: list[list[Question]]
) -> None:
    new = make_item(set="domain", prompt="word39 again", reference="39 m", facts=(("39 m",),))
    evaluated = read_items()
    write_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", [*ITEMS["domain"], new])
    assert judge(["Saunas are hot."], evaluated).changed == 1
    assert [prompts(call) for call in asked] == [{"word39 again"}, {"word39 again"}]


def test_without_key_facts_the_domain_is_judged_by_the_margins_of_a_night(judge: Judge) -> None:
    plain = [item.model_copy(update={"facts": ()}) for item in ITEMS["domain"]]
    write_jsonl(layout.EVALUATION_ITEMS / "domain.jsonl", plain)
    found = judge(["word3 word3 Height 3 metres."])
    assert [one.name for one in found.verdict.criteria] == ["domain_rouge_l", "domain_nll"]
