"""Self-QA (Zhang et al. 2023, arXiv 2305.11952): questions and answers out of documents that nobody has annotated.

As in its section 3: passages are drawn, the teacher asks what a passage answers and answers from it alone, and what
breaks a rule is filtered out. Beyond the paper, an answer has to be grounded in its passage (grounding.py). Limit: a
question is read from a line that ends in a question mark.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tasks.core.records import Document, Example, Origin
from tasks.corpus.construct.method import Method, Problem, items, mentioned, problem_with, unclean
from tasks.corpus.teacher.teacher import Reply
from tasks.text.grounding import ground

PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=[#|*-])")
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？；][\"'”’」』）]*|\n")
WORD_END = re.compile(r"(?=\s)")
# Letters and digits below which a passage, such as a page's number, has nothing to ask about.
MIN_PASSAGE = 40
MIN_QUESTION, MAX_QUESTION = 6, 300  # characters
QUESTION_MARKS = ("?", "？", "؟", "\u037e", "՞")


@dataclass(frozen=True)
class Chunk:
    """A passage: `text` is the document's text from character `start` up to `end`."""

    start: int
    end: int
    text: str


def chunk(document: Document, tokenizer: Any, tokens: int, overlap: int) -> list[Chunk]:
    """Passages of at most `tokens`, of which two share at most `overlap`, which has to be below (ValueError)."""
    if not 0 <= overlap < tokens:
        raise ValueError(f"overlap {overlap} must be below tokens {tokens}")
    text = document.text
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts = [start for start, _ in encoded["offset_mapping"]]  # tokens that are bytes of one character have the same
    patterns = (PARAGRAPH_END, SENTENCE_END, WORD_END)
    paragraphs, sentences, words = ([found.end() for found in one.finditer(text)] for one in patterns)
    chunks: list[Chunk] = []
    begin = end = 0
    while end < len(text):
        while begin < len(text) and text[begin].isspace():
            begin += 1
        end = _end(begin, end, tokens, starts, [paragraphs, sentences, words], len(text))
        piece = text[begin:end]
        right = begin + len(piece.rstrip())
        if right > max(begin, chunks[-1].end if chunks else 0):  # not where only space is new
            chunks.append(Chunk(begin, right, text[begin:right]))
        begin = _next(begin, end, tokens, overlap, starts, [sentences, words])
    return chunks


def _end(begin: int, before: int, tokens: int, starts: list[int], borders: list[list[int]], length: int) -> int:
    """Where a passage from character `begin` ends; the passage before it ended at `before`, and this one goes on."""
    first = bisect_left(starts, begin)
    if first + tokens >= len(starts):
        return length
    limit = starts[first + tokens]  # where the first token that no longer fits begins
    least = max(starts[first + tokens // 2], before, begin)
    for ends in borders:
        place = bisect_right(ends, limit) - 1
        if place >= 0 and ends[place] > least:
            return ends[place]
    if limit > max(before, begin):
        return limit
    place = bisect_right(starts, max(before, begin))  # a character of more tokens than a passage is not cut
    return starts[place] if place < len(starts) else length


def _next(begin: int, end: int, tokens: int, overlap: int, starts: list[int], borders: list[list[int]]) -> int:
    """The character the next passage begins at: at most `overlap` tokens before `end`, and behind `begin`."""
    if not overlap:
        return end
    place = max(bisect_left(starts, end) - overlap, 0)
    if place and starts[place - 1] == starts[place]:
        place = bisect_right(starts, starts[place])  # not from the middle of a character
    back = max(starts[place], begin + 1) if place < len(starts) else end
    for ends in borders:
        place = bisect_left(ends, back)
        if place < len(ends) and ends[place] < end:
            back = ends[place]
            break
    last = bisect_left(starts, back) + tokens
    goes_on = last >= len(starts) or starts[last] > end  # else the overlap leaves no room for the next character
    return min(back, end) if goes_on else end


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
        """The passages to ask about, drawn by the hash of seed and span; one more document moves few of the others."""
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
        words, language, shown = self.prompts.self_qa, self.prompts.language, self.prompts.self_qa.shown
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
