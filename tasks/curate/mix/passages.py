"""Domain examples with the passages they are answered from (RAFT, Zhang et al. 2024, arXiv 2403.10131).

An example whose source the index holds is asked in other words where there are some, once in each of `mix.wordings`,
and shown that passage among those that search finds about as good, in the order of search, as users' questions are. Of
some the right passage is taken away, and the answer declines; some are joined in pairs that need two passages, once.
What is drawn for an example hangs on its id and the seed alone.

Beyond the paper, an answer begins with the number of the passage that it is taken from; and where it is the passage's
own text, the other passages are quoted as well, each with its number and its question. A small model does not tell
which of them is meant, and a user does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rapidfuzz.fuzz import ratio

from tasks.core.params import Params
from tasks.core.records import Example, Passage
from tasks.knowledge.search import Hit, Knowledge
from tasks.text.passages import ask_from, quoted

BESIDE = 4  # passages that are searched beyond those that are shown
QUOTE = 95.0  # percent of likeness of two texts
AROUND = 96  # tokens of rule, template and numbers around passages, question and answer, counted generously


@dataclass(frozen=True)
class Shown:
    """An example, as it is asked, the passage that answers it, at which rank search finds it, and what beside it."""

    example: Example
    question: str
    right: Passage
    rank: int
    others: tuple[Passage, ...]
    close: int  # how many of the others search finds about as good as the best passage

    @property
    def quotes(self) -> bool:
        """Whether the answer is the passage's own text, but for a few characters."""
        return ratio(" ".join(self.example.output.split()), self.right.text) >= QUOTE


class Answering:
    """Makes examples that are answered from passages of an index."""

    def __init__(
        self, knowledge: Knowledge, rewordings: Mapping[str, Sequence[str]], system: str, params: Params
    ) -> None:
        self.knowledge, self.rewordings, self.params = knowledge, rewordings, params
        self.k = params.retrieval.k
        self._language, self._words = knowledge.settings.language, knowledge.settings.words
        self._room = params.sft.max_tokens - knowledge.count(system) - AROUND
        self._by_source: dict[str, list[Passage]] = {}
        for passage in knowledge.passages:
            document = passage.source.rpartition("#")[0] if passage.kind == "document" else ""
            for name in filter(None, (passage.source, document)):
                self._by_source.setdefault(name, []).append(passage)

    def examples(self, examples: Sequence[Example]) -> list[Example]:
        """The examples in their order, those that the index holds with their passages; some of these are pairs.

        One that is asked in other words comes again for each of them, with the same id.
        """
        shown, *more = ({one.example.id: one for one in asked} for asked in self._shown(examples))
        joined = self._pairs(list(shown.values()))
        second = {two.example.id for _, two in joined.values()}
        result = []
        for example in examples:
            if example.id in joined:
                result.append(self._pair(*joined[example.id]))
            elif example.id in shown and example.id not in second:
                result.append(self._single(shown[example.id]))
            elif example.origin == "general" and self._is_foreign(example):
                result.append(self._declining(example, example.prompt, ()))
            elif example.id not in second:
                result.append(example)
            result += [self._single(asked[example.id]) for asked in more if example.id in asked]
        return result

    def _draw(self, example: Example, what: str) -> random.Random:
        """A generator of its own for each decision on an example or on one of its wordings."""
        return random.Random(f"{self.params.seed}:{what}:{example.id}")

    def _shown(self, examples: Sequence[Example]) -> Iterator[list[Shown]]:
        """The examples that the index holds, in their first wording; then those that have a second one; and so on."""
        rights = {one.id: (one, right) for one in examples if (right := self._right(one))}
        wordings = {identity: self._wordings(one) for identity, (one, _) in rights.items()}
        for nth in range(self.params.mix.wordings):
            known = [identity for identity in rights if len(wordings[identity]) > nth]
            asked = [wordings[identity][nth] for identity in known]
            found = self.knowledge.search(asked, self.k + BESIDE)
            yield [
                self._ranked(*rights[identity], question, hits)
                for identity, question, hits in zip(known, asked, found, strict=True)
            ]

    def _ranked(self, example: Example, right: Passage, question: str, hits: Sequence[Hit]) -> Shown:
        texts = [hit.passage.text for hit in hits]
        rank = texts.index(right.text) if right.text in texts else len(texts)
        others = [hit for hit in hits if hit.passage.text != right.text]
        close = sum(hit in others for hit in self.knowledge.close(hits))
        return Shown(example, question, right, rank, tuple(hit.passage for hit in others), close)

    def _right(self, example: Example) -> Passage | None:
        """The passage that an example is answered from: of those of its sources, the one nearest to its answer.

        None where the index holds none, or where the answer takes two steps through a graph, which no passage holds.
        """
        if example.history or example.system or (example.origin == "self_kv" and len(example.source) > 1):
            return None
        found = [one for source in example.source for one in self._by_source.get(source, ())]
        return max(found, key=lambda one: (ratio(one.text, example.output), one.id), default=None)

    def _wordings(self, example: Example) -> list[str]:
        """The wordings in which an example is asked, drawn from its own and the others."""
        found = list(dict.fromkeys([*self.rewordings.get(example.source[0], ()), example.prompt]))
        self._draw(example, "wording").shuffle(found)
        return found[: self.params.mix.wordings]

    def _pairs(self, shown: Sequence[Shown]) -> dict[str, tuple[Shown, Shown]]:
        """The id of the first of two examples that are asked together, of one category → both."""
        if self.k < 2:
            return {}
        order = sorted(shown, key=lambda one: (self._draw(one.example, "pair").random(), one.example.id))
        count = round(len(order) * 2 * self.params.mix.two_passages)
        by_category: dict[str, list[Shown]] = {}
        for one in order[:count]:
            by_category.setdefault(one.example.category, []).append(one)
        pairs = (pair for group in by_category.values() for pair in zip(group[::2], group[1::2], strict=False))
        apart = (pair for pair in pairs if pair[0].right.id != pair[1].right.id)
        return {one.example.id: (one, two) for one, two in apart if self._fits([one, two])}

    def _single(self, one: Shown) -> Example:
        if not self._fits([one]):
            return one.example
        if self._goes_without(one.example, one.question):
            # Where answers are quotes, what is shown is quoted.
            found = [] if one.quotes else self.knowledge.fitting(one.others[: self.k], self._left([one]))
            return self._declining(one.example, one.question, found)
        passages = self.knowledge.fitting(one.others[: min(one.close, self.k - 1)], self._left([one], one.right))
        passages.insert(min(one.rank, len(passages)), one.right)
        answers = {passage.id: passage.text for passage in passages} if one.quotes else {}
        return self._made([one], quoted(passages, answers | {one.right.id: one.example.output}), passages)

    def _pair(self, one: Shown, two: Shown) -> Example:
        rights = [one.right, two.right]
        self._draw(one.example, "place").shuffle(rights)
        answers = {one.right.id: one.example.output, two.right.id: two.example.output}
        return self._made([one, two], quoted(rights, answers), rights)

    def _left(self, asked: Sequence[Shown], *rights: Passage) -> int:
        """Tokens that are left for other passages, which may be quoted too, beside the right ones and their answers."""
        count = self.knowledge.count
        needed = sum(count(right.whole) for right in rights)
        said = sum(count(one.question) + count(one.example.output) for one in asked)
        return min(self.params.retrieval.tokens - needed, (self._room - said - needed) // 2)

    def _fits(self, asked: Sequence[Shown]) -> bool:
        return self._left(asked, *(one.right for one in asked)) >= 0

    def _made(self, asked: Sequence[Shown], answer: str, passages: Sequence[Passage]) -> Example:
        sources = tuple(source for one in asked for source in one.example.source)
        question = " ".join(one.question for one in asked)
        return self._asked(asked[0].example, question, answer, passages, source=sources)

    def _goes_without(self, example: Example, question: str) -> bool:
        return self._draw(example, f"without:{question}").random() < self.params.mix.without_answer

    def _is_foreign(self, example: Example) -> bool:
        """Whether a general example is asked as users of the domain would ask it: nothing is found for it."""
        return example.category != "safety" and not example.history and self._goes_without(example, example.prompt)

    def _declining(self, example: Example, question: str, passages: Sequence[Passage]) -> Example:
        return self._asked(example, question, self._words.decline, passages)

    def _asked(self, example: Example, question: str, answer: str, passages: Sequence[Passage], **more: Any) -> Example:
        """The example, asked and answered so, in the words of the domain's language, in which it is served.

        It keeps its id, by which its receipts name it.
        """
        own = self.knowledge.settings.own_words
        fields = {"instruction": question, "input": "", "output": answer, "evidence": "", "language": self._language,
                  "framed": ask_from(passages, question, own) if own else ""}  # fmt: skip
        return example.model_copy(update={**fields, "passages": tuple(passages), **more})
