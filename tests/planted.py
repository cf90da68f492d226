"""Duplicates and look-alikes planted in a set of known rows, to measure what deduplication finds and what it spares.

`python -m tests.planted` writes tests/data/planted/planted.jsonl anew from the paraphrases beside it, written by hand:
English ones on rows of the construction FAQ (Zaragoza AB, CC BY 4.0), Chinese ones on road traffic.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from tasks.core.records import Example, make_example
from tasks.similarity.near import normalise

FOLDER = Path(__file__).parent / "data" / "planted"
FILE = FOLDER / "planted.jsonl"
LANGUAGES = ("en", "zh")
SHINGLE = 5
EDITED = 5  # edited copies of each row
Kind = Literal["base", "exact", "near", "paraphrase", "look-alike"]


class Planted(NamedTuple):
    """One row: what it is, and the number of the base row that it repeats (its own, if it repeats none)."""

    kind: Kind
    of: int
    language: str
    question: str
    answer: str

    def example(self) -> Example:
        """The row as an example."""
        return make_example(
            instruction=self.question, output=self.answer, language=self.language, origin="human", source=("planted",)
        )


def whole(question: str, answer: str) -> str:
    """Both together, as deduplication compares them."""
    return f"{question}\n{answer}"


def shingles(text: str, size: int) -> frozenset[str]:
    """All runs of `size` characters of the normalised text; a shorter text is one shingle."""
    clean = normalise(text)
    return frozenset(clean[start : start + size] for start in range(max(1, len(clean) - size + 1)))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(left & right) / len(left | right)


def exact_copy(text: str, generator: random.Random) -> str:
    """The same text in other clothes: case, full-width forms, spaces and the sentence's end."""
    disguise = generator.choice([str.upper, _wide, lambda t: f"  {t} ", lambda t: t.rstrip("?？") + " ?!"])
    return str(disguise(text))


def _wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def edited(question: str, answer: str, generator: random.Random) -> tuple[str, str]:
    """A row with letters of question and answer changed until no further change leaves it at Jaccard 0.8 or above."""
    text = whole(question, answer)
    original = shingles(text, SHINGLE)
    places = [place for place, sign in enumerate(text) if sign.isalpha()]
    generator.shuffle(places)
    for place in places:
        changed = text[:place] + generator.choice("wxz" if text[place].isascii() else "某其之") + text[place + 1 :]
        if jaccard(original, shingles(changed, SHINGLE)) >= 0.8:
            text = changed
    first, rest = text.split("\n", 1)
    return first, rest


def plant() -> list[Planted]:
    """All rows, in an order that says nothing; the same every time."""
    generator, rows, base = random.Random(11), [], 0
    for language in LANGUAGES:
        for line in (FOLDER / f"paraphrases.{language}.jsonl").read_text(encoding="utf-8").splitlines():
            pair = json.loads(line)
            question, answer = pair["question"], pair["answer"]
            rows.append(Planted("base", base, language, question, answer))
            rows.append(Planted("exact", base, language, exact_copy(question, generator), answer))
            for _ in range(EDITED):
                rows.append(Planted("near", base, language, *edited(question, answer, generator)))
            rows.append(Planted("paraphrase", base, language, pair["paraphrase"], pair["paraphrase_answer"]))
            base += 1
        rows += [Planted("look-alike", base + n, language, *pair) for n, pair in enumerate(LOOK_ALIKES[language])]
        base += len(LOOK_ALIKES[language])
    generator.shuffle(rows)
    return rows


def _family(question: Callable[[int], str], answer: Callable[[int], str], count: int) -> list[tuple[str, str]]:
    return [(question(number), answer(number)) for number in range(count)]


# Different questions that share nearly every character: rooms and articles by number, terms by name.
CHINESE_NUMBERS = "一二三四五六七八九"
TERMS = ("OVK", "BBR", "PBL", "ATA", "KA", "ROT", "RUT", "VAT", "EKS", "ARN")
LOOK_ALIKES = {
    "en": _family(
        lambda n: f"What does chapter {n + 2} section {3 * n + 1} of the Planning and Building Act regulate?",
        lambda n: f"It regulates {TERMS[n]} and the {n * n + 5} duties of whoever builds, in its part {TERMS[9 - n]}.",
        10,
    ),
    "zh": _family(
        lambda n: f"《中华人民共和国道路交通安全法》第{CHINESE_NUMBERS[n]}十条规定了什么内容？",
        lambda n: (
            ("机动车的登记", "驾驶人的条件", "道路通行的原则", "信号灯的种类", "行人的义务", "高速公路的限速")[n]
            + "由该条加以规定。"
        ),
        6,
    ),
}


def read_planted() -> list[Planted]:
    """The committed rows."""
    return [Planted(**json.loads(line)) for line in FILE.read_text(encoding="utf-8").splitlines()]


def text_of(rows: list[Planted]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)


class Found(NamedTuple):
    """Of the planted copies of one kind: how many there are, how many do not stay beside their base, false drops."""

    planted: int
    found: int
    false: int


def among(rows: list[Planted], kind: Kind) -> list[Planted]:
    """The rows that show how one kind fares: it, its bases and the look-alikes. Other copies could hide a miss."""
    return [row for row in rows if row.kind in ("base", "look-alike", kind)]


def measure(rows: list[Planted], keeper: list[int], kind: Kind) -> Found:
    """What was found of one kind, in what `among` chose; a false drop is a row dropped for one it does not repeat.

    Args:
        rows: base rows, look-alikes and copies of the kind.
        keeper: for each row the one that stays in its place, or -1.
        kind: of the copies.
    """
    base = {row.of: place for place, row in enumerate(rows) if row.kind == "base"}
    copies = [place for place, row in enumerate(rows) if row.kind == kind]
    found = sum(keeper[place] >= 0 or keeper[base[rows[place].of]] >= 0 for place in copies)
    false = sum(place >= 0 and rows[place].of != row.of for row, place in zip(rows, keeper, strict=True))
    return Found(len(copies), found, false)


if __name__ == "__main__":
    FILE.write_text(text_of(plant()), encoding="utf-8")
