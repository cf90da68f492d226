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
from dataclasses import dataclass, field
from typing import ClassVar

from tasks.core.records import Document, Example, Origin
from tasks.corpus.construct.chunks import Chunk
from tasks.corpus.construct.method import Method
from tasks.corpus.construct.replies import Problem, items, mentioned, problem_with, unclean
from tasks.corpus.teacher.cache import Reply
from tasks.text.grounding import ground

# Letters and digits below which a passage, such as a page's number, has nothing to ask about.
MIN_PASSAGE = 40
MIN_QUESTION, MAX_QUESTION = 6, 300  # characters
QUESTION_MARKS = ("?", "？", "؟", "\u037e", "՞")


@dataclass(frozen=True)
class Passage:
    """A part of a document: `source` is "<document>#<start>-<end>", a span of characters; `text` what it says."""

    source: str
    text: str


@dataclass(kw_only=True)
class SelfQa(Method):
    """The method; `seen` are the questions so far, folded."""

    origin: ClassVar[Origin] = "self_qa"
    seen: set[str] = field(default_factory=set)

    def passages(self, documents: Iterable[Document], cut: Callable[[Document], Sequence[Chunk]]) -> list[Passage]:
        """The passages to ask about, the same for the same seed whatever stands beside them; short ones are skipped.

        The draw is by the hash of seed and span, so that one more document moves few of the others.
        """
        found = (passage for document in documents for passage in self._long_ones(document, cut(document)))
        count, seed = self.params.construct_.self_qa.chunks, self.params.seed
        return heapq.nsmallest(
            count, found, key=lambda one: hashlib.blake2b(f"{seed}\x1f{one.source}".encode()).hexdigest()
        )

    def _long_ones(self, document: Document, chunks: Iterable[Chunk]) -> Iterator[Passage]:
        for chunk in chunks:
            if sum(char.isalnum() for char in chunk.text) < MIN_PASSAGE:
                self.skipped["passage too short"] += 1
                continue
            title = f"{document.title}\n" if document.title and document.title not in chunk.text else ""
            yield Passage(f"{document.name}#{chunk.start}-{chunk.end}", title + chunk.text)

    def build(self, drawn: Sequence[Passage]) -> None:
        """Examples out of passages: at most `questions_per_chunk` each, every answer grounded in its passage."""
        replies = self.ask(map(self._list_dialogue, drawn), "questions")
        asked = [
            (passage, question)
            for passage, reply in zip(drawn, replies, strict=True)
            for question in self._questions(passage, reply)
        ]
        replies = self.ask([self._answer_dialogue(*one) for one in asked], "answers")
        for (passage, question), reply in zip(asked, replies, strict=True):
            self._judge(self._example(passage, question, reply.text.strip()), reply)

    def _example(self, passage: Passage, question: str, answer: str) -> Example:
        return self.candidate(question, answer, (passage.source,), evidence=passage.text)

    def _list_dialogue(self, passage: Passage) -> list[str]:
        words, language = self.prompts.self_qa, self.prompts.language
        first = words.questions.format(number=2, language=language, passage=words.shown.passage)
        number = self.params.construct_.self_qa.questions_per_chunk
        last = words.questions.format(number=number, language=language, passage=passage.text)
        return [first, words.shown.questions, last]

    def _answer_dialogue(self, passage: Passage, question: str) -> list[str]:
        words, language = self.prompts.self_qa, self.prompts.language
        shown = words.shown
        first = words.answer.format(language=language, passage=shown.passage, question=shown.question)
        last = words.answer.format(language=language, passage=passage.text, question=question)
        return [first, shown.answer, last]

    def _questions(self, passage: Passage, reply: Reply) -> Iterator[str]:
        """The questions of a reply that can be asked; the others, and a reply without any, are dropped."""
        problem = problem_with(reply, self.prompts)
        # A list that was cut short has whole lines above the cut.
        if problem and problem.reason != "cut short":
            whole = self._example(passage, "", reply.text.strip())
            self.drop(whole, f"questions: {problem.reason}", problem.detail)
            return
        found = [item for item in items(reply.text) if item.endswith(QUESTION_MARKS)]
        if not found:
            self.drop(self._example(passage, "", reply.text.strip()), "no question in the reply")
        for question in found[: self.params.construct_.self_qa.questions_per_chunk]:
            if problem := self._question_problem(question):
                self.drop(self._example(passage, question, ""), *problem)
            else:
                self.seen.add(folded(question))
                yield question

    def _question_problem(self, question: str) -> Problem | None:
        if not MIN_QUESTION <= len(question) <= MAX_QUESTION:
            return Problem("question too short or too long", f"{len(question)} characters")
        if found := unclean(question):
            return found
        if folded(question) in self.seen:
            return Problem("question asked already")
        if folded(question) in map(folded, self.prompts.self_qa.shown.questions.splitlines()):
            return Problem("question copied from the worked example")
        if word := mentioned(question, self.prompts.deictic):
            return Problem("question hangs on its passage", word)
        return None

    def _judge(self, example: Example, reply: Reply) -> None:
        """Keep an answer or drop it, with the reason measured."""
        if problem := problem_with(reply, self.prompts):
            self.drop(example, *problem)
            return
        if folded(example.output) in folded(example.instruction):
            self.drop(example, "answer repeats the question")
            return
        grounding = ground(example.output, example.evidence, example.instruction)
        self.scores.append(grounding.score)
        if grounding.score < self.params.construct_.self_qa.min_groundedness:
            self.drop(example, "not grounded", str(grounding), grounding.score)
        else:
            self.keep(example, str(grounding), grounding.score)


def folded(text: str) -> str:
    """A text's letters and digits alone, upper and lower case alike, to tell whether two say the same."""
    return re.sub(r"[\W_]+", "", text.casefold())
