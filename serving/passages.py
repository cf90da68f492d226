"""A conversation and the passages of a version's index: the question asked from them, and the sources of its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.core.records import Passage, make_passage
from tasks.corpus.reading.forgotten import Forgotten
from tasks.store.memory import Correction
from tasks.store.schema import storable
from tasks.text.passages import AnsweringWords, ask_from, cited, uncited
from tasks.text.personal import masked

if TYPE_CHECKING:
    from tasks.knowledge.search import Hit, Knowledge

TOLD = ("kind", "question", "text", "source", "score")
_MARK = re.compile(r"\[\d+\]")  # where a citation can stand; what it cites is said by `cited`


def source_of(feedback_id: str) -> str:
    """The source of a correction's passage, as stage feedback names it."""
    return f"feedback:{feedback_id}"


@lru_cache(maxsize=2000)
def passage_of(correction: Correction) -> Passage:
    """A correction as the index would hold it; what people say of persons is shown unmasked to themselves only."""
    texts = (correction.question, uncited(correction.text))
    question, text = texts if correction.own else (masked(one)[0] for one in texts)
    return make_passage(kind="correction", question=question, text=text, source=source_of(correction.feedback))


@lru_cache(maxsize=4)  # champion and challenger, before and after something is forgotten
def left_out(knowledge: Knowledge, forgotten: frozenset[str]) -> frozenset[str]:
    """The sources in an index that were forgotten since it was made; `forgotten` are hashes of names."""
    gone = Forgotten(forgotten)
    return frozenset(one.source for one in knowledge.passages if gone(one.source))


def asked_from(messages: Sequence[dict[str, str]], hits: Sequence[Hit], words: AnsweringWords) -> list[dict[str, str]]:
    """The messages with the passages in the last one, as in training and evaluation."""
    *earlier, last = messages
    asked = ask_from([hit.passage for hit in hits], last["content"], words)
    return [*earlier, last | {"content": asked}]


def kept(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """What an answer's row keeps of its passages, in the order of their numbers."""
    return [
        {name: storable(value) for name, value in hit.passage.model_dump().items()} | {"score": hit.score}
        for hit in hits
    ]


def sources_of(text: str, passages: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The passages as sources of an answer, numbered as it cites them; None where nothing was looked up."""
    if passages is None:
        return None
    places = cited(text, len(passages))
    return [
        {"number": place + 1, **{name: passage[name] for name in TOLD}, "cited": place in places}
        for place, passage in enumerate(passages)
    ]


def annotations_of(answer_id: str, text: str, passages: Sequence[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """OpenAI's annotations: one for each mark in the answer that cites a passage; indices count characters."""
    found = ((mark, place) for mark in _MARK.finditer(text) for place in cited(mark.group(), len(passages or ())))
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": mark.start(),
                "end_index": mark.end(),
                "title": (passages or ())[place]["source"],
                "url": f"/v1/answers/{answer_id}#source-{place + 1}",
            },
        }
        for mark, place in found
    ]
