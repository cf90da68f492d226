"""Whether an answer is right: the key facts that it says, those that it contradicts, and whether it is an answer.

A fact is a list of alternatives, one of which has to be said; what must never be said is a list of the same form. An
alternative is a phrase: parts joined by " & " may stand anywhere, a leading "^" means at the beginning of the answer or
behind a citation, a "*" ends a word that may go on ("notif*"). Numbers, units, dashes and Chinese numerals are brought
to one form first, so that "5,000 SEK", "5 000 kr" and "5000 kronor" are the same.
Limits: words, not meaning: a fact said in words that nobody foresaw counts as not said.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tasks.core.records import EvaluationItem, Passage
from tasks.knowledge.words import words_of
from tasks.text.passages import AnsweringWords, cited, declines, uncited

_SPACED_GROUPS = re.compile(r"(?<![\d.,])\d{1,3}(?:[ ,]\d{3})+(?![\d])")
_RANGE = re.compile(r"(?<=[\d%]) ?(?:-|~|to|至|到) ?(?=\d)")
# Behind a unit no letter or digit may follow, but a Chinese character may, which is a word character too.
_END = "(?![a-z0-9à-ɏ])"
_UNITS = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        ("平方米", " m2"),
        ("公里|千米", " km"),
        ("毫米", " mm"),
        ("厘米", " cm"),
        ("(?<=[〇零一二三四五六七八九十百千万两0-9]) ?米", " m"),
        (rf"\b(?:square met(?:re|er)s?|sqm|sq\.? ?m|kvm){_END}", "m2"),
        (rf"\bkilomet(?:re|er)s?{_END}", "km"),
        (rf"\bmillimet(?:re|er)s?{_END}", "mm"),
        (rf"\bcentimet(?:re|er)s?{_END}", "cm"),
        (rf"(?<=\d) ?met(?:re|er)s?{_END}", " m"),
        (rf"\b(?:sek|kronor|swedish crowns?){_END}", "kr"),
        (rf" ?(?:%|\bper ?cent{_END})", "%"),
        (rf" ?°c{_END}| ?\bdegrees celsius{_END}", "°c"),
    )
)
_WRITTEN_FIRST = 5  # the Chinese ones: 千 of 千米 is no thousand
_ENGLISH_WORDS = "zero one two three four five six seven eight nine ten eleven twelve"
_ENGLISH = {word: str(number) for number, word in enumerate(_ENGLISH_WORDS.split(" "))}
_ENGLISH_NUMBER = re.compile(rf"\b(?:{'|'.join(_ENGLISH)})\b")
_DIGITS = {sign: value for value, sign in enumerate("〇一二三四五六七八九")} | {"零": 0, "两": 2}
_TENS = {"十": 10, "百": 100, "千": 1000, "万": 10_000}
_TIMES = re.compile(r"(\d+(?:\.\d+)?)([百千万])")  # digits with a Chinese unit behind them: 2万, 1.5万
_PERCENT = re.compile(r"百分之([〇零一二三四五六七八九十百两]+|\d+(?:\.\d+)?)")
_CHINESE_NUMBER = re.compile(rf"[{''.join(_DIGITS)}{''.join(_TENS)}]+")
_REPEATED = re.compile(r"(.{8,}?)(?:\s*\1){2}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """The text in the one form that is compared: small letters, no citations, plain numbers, units and dashes."""
    text = unicodedata.normalize("NFKC", uncited(text)).casefold()
    text = re.sub("[‐-―−]", "-", text).translate({ord("’"): "'", ord("‘"): "'", ord("“"): '"', ord("”"): '"'})
    for pattern, unit in _UNITS[:_WRITTEN_FIRST]:
        text = pattern.sub(unit, text)
    text = _PERCENT.sub(lambda found: f"{found[1]}%", text)
    text = _TIMES.sub(lambda found: str(round(float(found[1]) * _TENS[found[2]])), text)
    text = _CHINESE_NUMBER.sub(lambda found: _chinese(found[0]), text)
    text = _ENGLISH_NUMBER.sub(lambda found: _ENGLISH[found[0]], text)
    text = re.sub(r"\s+", " ", text)
    text = _SPACED_GROUPS.sub(lambda found: re.sub("[ ,]", "", found[0]), text)
    for pattern, unit in _UNITS[_WRITTEN_FIRST:]:
        text = pattern.sub(unit, text)
    text = re.sub(rf"(?<=\d)(?=(?:m|mm|cm|km|m2|kr|kg|kw|kwh|l){_END})", " ", text)
    return _RANGE.sub("-", text).strip()


def _chinese(numeral: str) -> str:
    """A Chinese numeral in digits; one that is none (一千千) stays as it is."""
    if not any(sign in _TENS for sign in numeral):
        return "".join(str(_DIGITS[sign]) for sign in numeral)
    total = section = digit = 0
    for sign in numeral:
        if sign in _DIGITS:
            digit = _DIGITS[sign]
        elif sign == "万":
            total, section, digit = (section + digit) * 10_000, 0, 0
        else:
            section, digit = section + (digit or 1) * _TENS[sign], 0
    return str(total + section + digit)


def said(alternatives: Iterable[str], answer: str, begins: bool = True) -> bool:
    """Whether an answer says one of the alternatives; `begins`: whether it is one from its beginning, which ^ asks."""
    text = plain(answer)
    return any(
        all(_pattern(part.strip()).search(text) for part in alternative.split(" & "))
        for alternative in alternatives
        if begins or "^" not in alternative
    )


@lru_cache(maxsize=4096)
def _pattern(part: str) -> re.Pattern[str]:
    start, part = ("^\\W*", part[1:]) if part.startswith("^") else ("", part)
    open_ended = part.endswith("*")
    words = plain(part.rstrip("*"))
    before = r"(?<![a-z0-9à-ɏ])(?<!\d[.,])" if re.match(r"[a-z0-9à-ɏ]", words) else ""
    after = r"(?![a-z0-9à-ɏ])(?![.,]\d)" if re.search(r"[a-z0-9à-ɏ]$", words) and not open_ended else ""
    return re.compile(start + before + re.escape(words) + after)


def invented_numbers(answer: str, known: Iterable[str]) -> list[str]:
    """Numbers of an answer that stand in none of the known texts: the reference, the question and the alternatives.

    Of one digit only those written as one: "one pays" and 一般 name no number.
    """
    there = {number for text in known for number in _NUMBER.findall(plain(text))}
    written = set(_NUMBER.findall(unicodedata.normalize("NFKC", uncited(answer))))
    found = _NUMBER.findall(plain(answer))
    return [number for number in found if number not in there and (len(number) > 1 or number in written)]


def share_said(item: EvaluationItem, answer: str) -> float:
    """How much of what the reference says beyond the question an answer says, 0 to 1: a share of its words.

    0 where it lacks a figure that the reference brings, or goes round in circles: a correction has no key facts.
    """
    question, reference, text = plain(item.prompt), plain(item.reference), plain(answer)
    asked, spoken = set(words_of(question)), set(words_of(text))
    wanted = set(words_of(reference)) - asked or set(words_of(reference))
    figures = set(_NUMBER.findall(reference)) - set(_NUMBER.findall(question))
    if not wanted or is_degenerate(answer) or figures - set(_NUMBER.findall(text)):
        return 0.0
    return len(wanted & spoken) / len(wanted)


@dataclass(frozen=True)
class Judged:
    """What is measured of one answer to one item; docs/evaluation.md."""

    right: bool
    contradicted: bool
    cited: bool
    declined: bool
    degenerate: bool


def judge_answer(item: EvaluationItem, answer: str, passages: Sequence[Passage], words: AnsweringWords) -> Judged:
    """Judge an answer by the key facts of its item; `passages` are those it was given, in order.

    An aside, an entry quoted behind its own question, answers that one: its "Yes" is none to the item's, and what else
    it says is held against the answer only where it says a fact, or nothing else does.
    """
    declined, degenerate = declines(answer, words), is_degenerate(answer)
    texts = [item.reference, item.prompt, *item.paraphrases, *(one for fact in item.facts for one in fact)]
    # What a passage says is not made up: an answer from the wrong one is not right, and contradicts nothing.
    texts += [passage.whole for passage in passages]
    parts = parts_of(item, answer, passages)

    def says(alternatives: Iterable[str], part: str) -> bool:
        return said(alternatives, part, begins=not parts[part])

    telling = [part for part in parts if any(says(fact, part) for fact in item.facts)]
    told = [part for part, aside in parts.items() if part in telling or not aside or not telling]
    whole = "\n".join(told)
    complete = all(any(says(fact, part) for part in told) or said(fact, whole, begins=False) for fact in item.facts)
    # A right answer may say more, with numbers of its own; one that lacks a fact has them in its place.
    contradicted = any(says(item.never, part) for part in told)
    contradicted |= not complete and bool(invented_numbers(whole, texts))
    named = [passages[place].text for place in cited(answer, len(passages))]
    return Judged(
        right=bool(item.facts) and complete and not (contradicted or declined or degenerate),
        contradicted=contradicted and not declined,
        cited=bool(named) and all(any(said(fact, text) for text in named) for fact in item.facts),
        declined=declined,
        degenerate=degenerate,
    )


def parts_of(item: EvaluationItem, answer: str, passages: Sequence[Passage]) -> dict[str, bool]:
    """The answer, cut before each citation and without the questions of entries → whether the part is an aside."""
    parts = {}
    for part in re.split(r"(?=\[\d{1,2}\])", answer):
        named, text = cited(part, len(passages)), uncited(part)
        question, source = (passages[named[0]].question, passages[named[0]].source) if named else ("", "")
        behind = bool(question) and text.startswith(question)
        if said_there := text.removeprefix(question).strip():
            parts[said_there] = behind and source not in item.source
    return parts


def is_degenerate(answer: str) -> bool:
    """Whether an answer is empty, or says a stretch of eight characters or more three times in a row."""
    return not answer.strip() or _REPEATED.search(" ".join(answer.split())) is not None
