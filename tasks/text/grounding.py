"""How far an answer follows from its evidence, as one number: language-neutral, deterministic, without a model.

The share of the answer's letters and digits that its evidence says too, by coverage of fragments (Grusky et al. 2018,
"Newsroom", section 4.1, equation 1). A fragment is a word or, in writing without spaces, two characters side by side; a
word that shares its first letters with one of the evidence counts as it (permit, permits). What the question says is
neither support nor claim. A number that neither holds makes the whole answer ungrounded. Limits: no meaning is read, so
a dropped negation passes; numbers written in words are words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from rapidfuzz.distance import Prefix

# Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
PIECES = re.compile(rf"(?P<number>\d+(?:[.,\u202f\u00a0 ’']\d+)*)|(?P<run>[{UNSPACED}]+)|(?P<word>[^\W\d_{UNSPACED}]+)")
# The numbers of a list's items say nothing.
ITEM = re.compile(r"^[ \t]*\(?\d{1,2}[.)、．][ \t]*(?=\D)", re.MULTILINE)
SEPARATOR = re.compile(r"[.,\u202f\u00a0 ’'](?=\d)")
PREFIX = 4  # letters that two forms of a word share at least
SHARED = 0.7  # of the longer form


@dataclass(frozen=True)
class Grounding:
    """`score` in 0..1; `missing` are the answer's numbers that stand in neither evidence nor question."""

    score: float
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The measured reason, for receipts."""
        if self.missing:
            return f"numbers that its evidence does not hold: {', '.join(self.missing)}"
        return f"{self.score:.2f} of it follows from its evidence"


def groundedness(answer: str, evidence: str, question: str = "") -> float:
    """The share of an answer, in 0..1, that its evidence supports; 0 where a number of it is unsupported."""
    return ground(answer, evidence, question).score


def ground(answer: str, evidence: str, question: str = "") -> Grounding:
    """As groundedness, with the numbers that are missing."""
    held, asked = _Source(evidence), _Source(question)
    parts = list(pieces(ITEM.sub("", answer)))
    numbers = [_number(text) for kind, text in parts if kind == "number"]
    missing = tuple(dict.fromkeys(n for n in numbers if n not in held.numbers and n not in asked.numbers))
    if missing:
        return Grounding(0.0, missing)
    supported, new = _characters(parts, held), [not known for known in _characters(parts, asked)]
    measured = [good for good, fresh in zip(supported, new, strict=True) if fresh] or supported
    return Grounding(sum(measured) / len(measured) if measured else 0.0)


class _Source:
    """The fragments of a text."""

    def __init__(self, text: str) -> None:
        self.numbers: set[str] = set()
        self.pairs: set[str] = set()
        self.words: set[str] = set()
        self._by_prefix: dict[str, list[str]] = {}
        for kind, piece in pieces(text):
            if kind == "number":
                self.numbers.add(_number(piece))
            elif kind == "run":
                self.pairs.update(piece[at : at + 2] for at in range(len(piece) - 1))
            elif piece not in self.words:
                self.words.add(piece)
                self._by_prefix.setdefault(piece[:PREFIX], []).append(piece)

    def word(self, word: str) -> bool:
        """Whether it says this word, or another form of it."""
        return word in self.words or any(related(word, other) for other in self._by_prefix.get(word[:PREFIX], ()))


def _characters(parts: list[tuple[str, str]], source: _Source) -> list[bool]:
    """For every letter and digit of the pieces, in order: whether a text says it."""
    marks: list[bool] = []
    for kind, piece in parts:
        if kind == "run":
            covered = [False] * len(piece)
            for at in range(len(piece) - 1):
                if piece[at : at + 2] in source.pairs:
                    covered[at] = covered[at + 1] = True
            marks += covered
        else:
            known = _number(piece) in source.numbers if kind == "number" else source.word(piece)
            marks += [known] * len(piece)
    return marks


def pieces(text: str) -> Iterator[tuple[str, str]]:
    """Numbers, words and unspaced runs of a text, in order, width and case made equal."""
    for match in PIECES.finditer(unicodedata.normalize("NFKC", text).casefold()):
        yield str(match.lastgroup), match.group()


def _number(text: str) -> str:
    """One form of a number: 1,000 = 1 000 = 1000 (separators before three digits), 1,50 = 1.5; any script's digits."""
    digits = "".join(str(unicodedata.digit(char)) if char.isdigit() else char for char in text)
    parts = SEPARATOR.split(digits)
    whole, fraction = parts[0], ""
    for part in parts[1:]:
        if len(part) == 3 and not fraction:
            whole += part
        else:
            fraction += part
    return (whole.lstrip("0") or "0") + (f".{fraction.rstrip('0')}" if fraction.rstrip("0") else "")


def related(word: str, other: str) -> bool:
    """Whether two words share so many first letters that one is taken for a form of the other."""
    shared = Prefix.similarity(word, other)
    return shared >= PREFIX and shared >= SHARED * max(len(word), len(other))
