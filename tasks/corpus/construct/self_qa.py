"""Self-QA (Zhang et al. 2023, arXiv 2305.11952): questions and answers out of documents that nobody has annotated.

As in its section 3: passages are drawn, the teacher asks what a passage answers and answers from it alone, and what
breaks a rule is filtered out. Beyond the paper, a passage is shown once, for questions and answers together, and an
answer has to be grounded in it (grounding.py). With `turns` above 1 they are one conversation: each question may follow
up the answer before it, and is learnt with what came before; an exchange that cannot be used ends it.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tasks.core.records import Document, Example, Origin, Turn
from tasks.corpus.construct.method import Method, Problem, mentioned, unclean
from tasks.corpus.teacher.teacher import Reply
from tasks.text.grounding import ground, groundedness

PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=[#|*-])")
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？；][\"'”’」』）]*|\n")
WORD_END = re.compile(r"(?=\s)")
TABLE = re.compile(r"^(?P<head>\|.*\n)\|[-:| ]+\n(?:\|.*(?:\n|\Z))+", re.MULTILINE)  # as Markdown has it
# Letters and digits below which a passage, such as a page's number, has nothing to ask about.
MIN_PASSAGE = 40
MIN_QUESTION, MAX_QUESTION = 6, 300  # characters
FIELDS = ("question", "answer")
QUESTION_MARKS = ("?", "？", "؟", "\u037e", "՞")


@dataclass(frozen=True)
class Chunk:
    """A passage: `text` is the document's text from `start` up to `end`; `head` the first row of a table it goes on."""

    start: int
    end: int
    text: str
    head: str = ""


def chunk(document: Document, tokenizer: Any, tokens: int, overlap: int) -> list[Chunk]:
    """Passages of at most `tokens`, of which two share at most `overlap`, which has to be below (ValueError).

    One that begins inside of a table has room for the table's first row, where that is no longer than half of it.
    """
    if not 0 <= overlap < tokens:
        raise ValueError(f"overlap {overlap} must be below tokens {tokens}")
    text = document.text
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    starts = [start for start, _ in encoded["offset_mapping"]]  # tokens that are bytes of one character have the same
    patterns = (PARAGRAPH_END, SENTENCE_END, WORD_END)
    paragraphs, sentences, words = ([found.end() for found in one.finditer(text)] for one in patterns)
    tables = list(TABLE.finditer(text))
    chunks: list[Chunk] = []
    begin = end = 0
    while end < len(text):
        while begin < len(text) and text[begin].isspace():
            begin += 1
        head = next((one.span("head") for one in tables if one.start() < begin < one.end()), (0, 0))
        room = bisect_left(starts, head[1]) - bisect_left(starts, head[0])
        if room > tokens // 2:
            head, room = (0, 0), 0
        end = _end(begin, end, tokens - room, starts, [paragraphs, sentences, words], len(text))
        piece = text[begin:end]
        right = begin + len(piece.rstrip())
        if right > max(begin, chunks[-1].end if chunks else 0):  # not where only space is new
            chunks.append(Chunk(begin, right, text[begin:right], text[slice(*head)]))
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
            yield Passage(f"{document.name}#{chunk.start}-{chunk.end}", title + chunk.head + chunk.text)

    def build(self, drawn: Sequence[Passage]) -> None:
        """Examples out of passages, one request each; every answer is grounded in its passage."""
        settings = self.params.construct_.self_qa
        talks = settings.turns > 1
        most = settings.turns if talks else settings.questions_per_chunk
        replies = self.ask([self._dialogue(passage, talks, most) for passage in drawn], "passages", FIELDS, most)
        for passage, reply in zip(drawn, replies, strict=True):
            exchanges = self.items(reply, FIELDS, most, (passage.source,), evidence=passage.text)
            for part in [exchanges] if talks else [[one] for one in exchanges]:
                self._judge(passage, reply, [Turn(user=one["question"], assistant=one["answer"]) for one in part])

    def _dialogue(self, passage: Passage, talks: bool, most: int) -> list[str]:
        words, language, shown = self.prompts.self_qa, self.prompts.language, self.prompts.self_qa.shown
        prompt = words.conversation if talks else words.pairs
        questions = [shown.questions[0], shown.follow_up] if talks else shown.questions
        pairs = [dict(zip(FIELDS, pair, strict=True)) for pair in zip(questions, shown.answers, strict=True)]
        first = prompt.format(number=len(pairs), language=language, passage=shown.passage)
        last = prompt.format(number=most, language=language, passage=passage.text)
        return [first, json.dumps({"items": pairs}, ensure_ascii=False), last]

    def _judge(self, passage: Passage, reply: Reply, turns: Sequence[Turn]) -> None:
        """An example of each exchange, with those before it as history, as far as all of them can be used."""
        kept = len(self.examples)
        for place, turn in enumerate(turns):
            earlier = tuple(turns[:place])
            example = self.candidate(
                turn.user, turn.assistant, (passage.source,), evidence=passage.text, history=earlier
            )
            if len(self.examples) - kept < place:
                self.drop(example, "behind an exchange that cannot be used")
            elif problem := self._problem(example, reply):
                self.drop(example, *problem)
            else:
                grounding = ground(example.output, example.evidence, example.instruction)
                self.scores.append(grounding.score)
                if grounding.score >= self.params.construct_.self_qa.min_groundedness:
                    self.keep(example, str(grounding), grounding.score)
                else:
                    self.drop(example, "not grounded", str(grounding), grounding.score)

    def _problem(self, example: Example, reply: Reply) -> Problem | None:
        question, shown = folded(example.instruction), self.prompts.self_qa.shown
        if not MIN_QUESTION <= len(example.instruction) <= MAX_QUESTION:
            return Problem("question too short or too long", f"{len(example.instruction)} characters")
        if not example.instruction.endswith(QUESTION_MARKS):
            return Problem("not a question")
        if found := unclean(example.instruction):
            return found
        if word := mentioned(example.instruction, self.prompts.deictic):
            return Problem("question hangs on its passage", word)
        if question in map(folded, shown.questions):
            return Problem("question copied from the worked example")
        if not example.history:
            if question in self.seen:
                return Problem("question asked already")
            self.seen.add(question)
        if problem := self.text_problem(reply, example.output):
            return problem
        said_already = groundedness(example.output, example.instruction) == 1.0
        return Problem("answer repeats the question") if said_already else None


def folded(text: str) -> str:
    """A text's letters and digits alone, upper and lower case alike, to tell whether two say the same."""
    return re.sub(r"[\W_]+", "", text.casefold())
