"""Self-QA (Zhang et al. 2023, arXiv 2305.11952): questions and answers out of documents that nobody has annotated.

As in its section 3: passages are drawn; the teacher asks questions that a passage answers (knowledge-guided
instruction generation); it answers each from the passage alone (machine reading comprehension); what breaks a rule is
filtered out. Beyond the paper, every answer is measured against its passage (grounding.py) and dropped below a stated
share: a small teacher invents, and a domain model must not learn that. Nothing is padded; zero is an outcome.

Limits: a question is read from a line that ends in a question mark. Each document is cut when it is drawn from, so
memory is bounded by the passages drawn and the largest document.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.core.params import SelfQaParams, TeacherParams
from tasks.core.records import Document, Example, make_example
from tasks.corpus.construct.chunks import Chunk
from tasks.corpus.construct.replies import Problem, items, mentioned, problem_with, unclean
from tasks.corpus.construct.result import Made
from tasks.corpus.construct.teacher_prompts import TeacherPrompts
from tasks.corpus.teacher.cache import Ask, Reply, dialogue
from tasks.text.grounding import ground

if TYPE_CHECKING:
    from tasks.corpus.teacher.teacher import Teacher

# Letters and digits below which a passage, such as a page's number, has nothing to ask about.
MIN_PASSAGE = 40
MIN_QUESTION, MAX_QUESTION = 6, 300  # characters
QUESTION_MARKS = ("?", "？", "؟", "\u037e", "՞")


@dataclass(frozen=True)
class Passage:
    """A part of a document: `source` is "<document>#<start>-<end>", a span of characters; `text` what it says."""

    source: str
    text: str


def passages(
    documents: Iterable[Document], cut: Callable[[Document], Sequence[Chunk]], count: int, seed: int
) -> tuple[list[Passage], int]:
    """`count` passages drawn from all, the same for the same seed whatever stands beside them; and how many are short.

    The draw is by the hash of seed and span, so that one more document moves few of the others.
    """
    short = 0

    def all_of_them() -> Iterator[tuple[str, Passage]]:
        nonlocal short
        for document in documents:
            for chunk in cut(document):
                if sum(char.isalnum() for char in chunk.text) < MIN_PASSAGE:
                    short += 1
                    continue
                source = f"{document.name}#{chunk.start}-{chunk.end}"
                title = f"{document.title}\n" if document.title and document.title not in chunk.text else ""
                yield hashlib.blake2b(f"{seed}\x1f{source}".encode()).hexdigest(), Passage(source, title + chunk.text)

    drawn = heapq.nsmallest(count, all_of_them(), key=lambda entry: entry[0])
    return [passage for _, passage in drawn], short


def build(
    drawn: Sequence[Passage],
    params: SelfQaParams,
    settings: TeacherParams,
    prompts: TeacherPrompts,
    language: str,
    teacher: Teacher,
) -> Made:
    """Examples out of passages: at most `questions_per_chunk` each, every answer grounded in its passage."""
    made = Made("self_qa")
    replies = teacher.ask([_ask_questions(p, params, settings, prompts) for p in drawn], "self_qa: questions")
    asked: list[tuple[Passage, str]] = []
    seen: set[str] = set()
    for passage, reply in zip(drawn, replies, strict=True):
        asked += [(passage, question) for question in _questions(passage, reply, params, prompts, language, made, seen)]
    replies = teacher.ask([_ask_answer(p, q, settings, prompts) for p, q in asked], "self_qa: answers")
    for (passage, question), reply in zip(asked, replies, strict=True):
        _judge(candidate(passage, question, reply.text.strip(), language), reply, params, prompts, made)
    return made


def candidate(passage: Passage, question: str, answer: str, language: str) -> Example:
    """A question and its answer as an example, with the passage it has to follow from."""
    return make_example(
        instruction=question,
        output=answer,
        language=language,
        origin="self_qa",
        source=(passage.source,),
        evidence=passage.text,
    )


def _ask_questions(passage: Passage, params: SelfQaParams, settings: TeacherParams, prompts: TeacherPrompts) -> Ask:
    shown = prompts.self_qa.shown
    fields = {"number": params.questions_per_chunk, "language": prompts.language}
    first = prompts.self_qa.questions.format(**(fields | {"number": 2}), passage=shown.passage)
    last = prompts.self_qa.questions.format(**fields, passage=passage.text)
    return _ask(settings, first, shown.questions, last)


def _ask_answer(passage: Passage, question: str, settings: TeacherParams, prompts: TeacherPrompts) -> Ask:
    shown, answer = prompts.self_qa.shown, prompts.self_qa.answer
    first = answer.format(language=prompts.language, passage=shown.passage, question=shown.question)
    last = answer.format(language=prompts.language, passage=passage.text, question=question)
    return _ask(settings, first, shown.answer, last)


def _ask(settings: TeacherParams, *texts: str) -> Ask:
    return Ask(messages=dialogue(*texts), max_tokens=settings.max_tokens, temperature=settings.temperature)


def _questions(
    passage: Passage,
    reply: Reply,
    params: SelfQaParams,
    prompts: TeacherPrompts,
    language: str,
    made: Made,
    seen: set[str],
) -> list[str]:
    """The questions of a reply that can be asked; the others, and a reply without any, are dropped with the reason."""
    problem = problem_with(reply, prompts)
    # A list that was cut short has whole lines above the cut.
    if problem and problem.reason != "cut short":
        made.drop(candidate(passage, "", reply.text.strip(), language), f"questions: {problem.reason}", problem.detail)
        return []
    found = [item for item in items(reply.text) if item.endswith(QUESTION_MARKS)][: params.questions_per_chunk]
    if not found:
        made.drop(candidate(passage, "", reply.text.strip(), language), "no question in the reply")
    kept = []
    for question in found:
        if problem := _question_problem(question, passage, prompts, seen):
            made.drop(candidate(passage, question, "", language), *problem)
        else:
            kept.append(question)
            seen.add(folded(question))
    return kept


def _question_problem(question: str, passage: Passage, prompts: TeacherPrompts, seen: set[str]) -> Problem | None:
    if not MIN_QUESTION <= len(question) <= MAX_QUESTION:
        return Problem("question too short or too long", f"{len(question)} characters")
    if found := unclean(question):
        return found
    if folded(question) in seen:
        return Problem("question asked already")
    if folded(question) in {folded(line) for line in prompts.self_qa.shown.questions.splitlines()}:
        return Problem("question copied from the worked example")
    if word := mentioned(question, prompts.deictic):
        return Problem("question hangs on its passage", word)
    return None


def _judge(example: Example, reply: Reply, params: SelfQaParams, prompts: TeacherPrompts, made: Made) -> None:
    """Keep an answer or drop it, with the reason measured."""
    if problem := problem_with(reply, prompts):
        made.drop(example, *problem)
        return
    if folded(example.output) in folded(example.instruction):
        made.drop(example, "answer repeats the question")
        return
    grounding = ground(example.output, example.evidence, example.instruction)
    made.scores.append(grounding.score)
    if grounding.score < params.min_groundedness:
        made.drop(example, "not grounded", str(grounding), grounding.score)
    else:
        made.keep(example, str(grounding), grounding.score)


def folded(text: str) -> str:
    """A text's letters and digits alone, upper and lower case alike, to tell whether two say the same."""
    return re.sub(r"[\W_]+", "", text.casefold())
