"""What passages and what training each give: the domain's questions put to base and tuned model, with and without both.

Beside the four, plain search: the first passage as it stands, and all that are shown; or the sentence that declines
where nothing is found. The reserve are the same questions in the other words that their authors froze with them, which
no gate asks: what versions were chosen by is not what they are measured by there. All answers are judged by the key
facts of the items. Runs outside the graph, for `flywheel compare --retrieval` and `--open-reserve`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.intervals import Interval, mean_interval
from tasks.core.params import Params, load_params
from tasks.core.records import EvaluationItem, Passage
from tasks.evaluate.run.stage import load_tokenizer, passages_for, responses_to
from tasks.evaluate.scoring.facts import Judged, judge_answer
from tasks.evaluate.scoring.questions import questions_of, read_items
from tasks.evaluate.scoring.subject import Subject, base_alone, load_subject
from tasks.similarity.embedder import in_other_words
from tasks.text.passages import AnsweringWords, domain_words, quoted

Found = Mapping[str, tuple[Passage, ...]]
PLAIN = {"plain search, first passage": 1, "plain search, all that are shown": None}  # passages that it answers with
TWO = "two passages"  # the category of items that need two


class NoReserve(FlywheelError):
    """The domain's questions have no other wordings."""


@dataclass(frozen=True)
class Arm:
    """One way to answer, and what it gives: shares of the items that have key facts, or that nothing answers.

    `right` with its interval; `two` are right ones among those that need two passages, None where there are none.
    """

    name: str
    n: int
    right: Interval
    two: float | None
    contradicted: float
    cited: float
    declined: float
    declined_unanswerable: float | None
    degenerate: float


def compare_arms(passages: Sequence[bool]) -> list[Arm]:
    """The arms with passages (True), without (False) or both; see the module. Raises SubjectError, EvaluationError."""
    params = load_params()
    domain = load_domain(params.domain)
    words, tuned = domain_words(domain), load_subject("candidate")
    items = [item for item in read_items() if item.facts or item.set == "declining"]
    found = passages_for(tuned, items)
    arms = []
    for name, subject, system in (("base", base_alone("base"), domain.system_text()), ("tuned", tuned, tuned.system)):
        for shown in passages:
            asked = found if shown else {}
            judged = _asked(items, subject, system or "", words, asked, params)
            arms.append(arm_of(f"{name}, {'with' if shown else 'without'} passages", items, judged, params))
    if True in passages:
        for name, most in PLAIN.items():
            answers = [plain_search(found[item.id][:most], words) for item in items]
            judged = [judge_answer(item, a, found[item.id], words) for item, a in zip(items, answers, strict=True)]
            arms.append(arm_of(name, items, judged, params))
    return arms


def open_reserve(subjects: Mapping[str, Subject]) -> list[Arm]:
    """Each version (name → model) as the gate asks it, and as the reserve does.

    Raises NoReserve: no item has other words; SubjectError, EvaluationError.
    """
    params = load_params()
    domain = load_domain(params.domain)
    standing = [item for item in read_items() if item.facts or item.set == "declining"]
    reserve = [in_other_words(item)[0] for item in standing if item.paraphrases]
    if not any(item.facts for item in reserve):
        raise NoReserve(f"no question of {domain.name} with key facts has `paraphrases`: it has no reserve")
    arms = []
    for name, subject in subjects.items():
        for kind, items in (("as the gate asks", standing), ("the reserve", reserve)):
            system, found = subject.system or domain.system_text(), passages_for(subject, items)
            judged = _asked(items, subject, system, domain_words(domain), found, params)
            arms.append(arm_of(f"{name}, {kind}", items, judged, params))
    return arms


def plain_search(passages: Sequence[Passage], words: AnsweringWords) -> str:
    """What plain search answers: passages as they stand, several with the questions that they answer."""
    return quoted(passages, {one.id: one.text for one in passages}) or words.decline


def _asked(
    items: Sequence[EvaluationItem], subject: Subject, system: str, words: AnsweringWords, found: Found, params: Params
) -> list[Judged]:
    every = questions_of(items, load_tokenizer(subject.base), system, words, found)
    questions = [question for question in every if question.kind == "generation"]
    responses, _ = responses_to(questions, subject, params.evaluate)
    return [
        judge_answer(question.item, response.text or "", question.passages or (), words)
        for question, response in zip(questions, responses, strict=True)
    ]


def arm_of(name: str, items: Sequence[EvaluationItem], judged: Sequence[Judged], params: Params) -> Arm:
    """The shares of one arm's judged answers, in the order of the items."""
    pairs = list(zip(items, judged, strict=True))
    facts = [(item, one) for item, one in pairs if item.facts]
    two = [float(one.right) for item, one in facts if item.category == TWO]
    declining = [float(one.declined) for item, one in pairs if item.set == "declining"]

    def share(what: str) -> float:
        return _mean([float(getattr(one, what)) for _, one in facts]) or 0.0

    right = [float(one.right) for _, one in facts]
    interval = mean_interval(right, level=params.gate.level, resamples=params.gate.resamples, seed=params.seed)
    return Arm(
        name,
        len(facts),
        interval,
        _mean(two),
        share("contradicted"),
        share("cited"),
        share("declined"),
        _mean(declining),
        share("degenerate"),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
