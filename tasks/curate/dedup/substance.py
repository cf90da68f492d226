"""What tells two examples apart though they share nearly all their characters, and all their meaning to an embedder.

Numbers, signs, negations and opposites of a question always do (article 73 and 74, with and without, 5 a and 5 b, paid
and unpaid, from Oslo to Rome); another word where the answers differ, too. Limits: negations are those of the lists
below, or a prefix of a word that the other has without it; languages without a list have signs, numbers and order.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from rapidfuzz.distance import Indel

from tasks.similarity.near import normalise
from tasks.text.grounding import groundedness, pieces, related

MARK = re.compile(
    r"(?:(?<![^\s(])[-−])?\d+(?:[.,:/]\d+)*"
    r"|第[〇零一二三四五六七八九十百千]+|[二三四五六七八九十百千万两零〇]+"
    r"|[+#*/<>=%&@^~|$€£¥°±×÷≤≥≠≈√∞∈∉⊂→←↑↓]+"
    r"|(?<![\w.])\.(?=\w)|(?<![\w-])--?(?=\w)|(?<=\w)--(?!\w)|(?<!\S)!(?=\w)"  # .net, -v, i--, !x
)
# Of English, the Nordic, Germanic, Romance and Slavic languages, Finnish, Hungarian, Greek, Turkish, Hebrew, Arabic...
NEGATIONS = frozenset(
    re.findall(
        r"\S+",
        """
    not no never none nobody nothing nowhere neither nor cannot without unless except forbidden prohibited
    banned inte ej icke aldrig ingen inget inga ingenting utan varken förbjudet förbjuden otillåtet ikke intet
    aldri uden uten nej nei nicht kein keine keinen keinem keiner keines nichts nie niemals nein ohne weder
    verboten untersagt niet geen nooit zonder niets nee ne pas jamais sans aucun aucune ni non interdit
    interdite nunca sin ningún ninguna ninguno nada jamás tampoco prohibido prohibida não sem nenhum nenhuma nem
    mai senza nessun nessuna né niente vietato ei eivät älä ilman bez nigdy żaden żadna nic není nejsou nikdy
    nincs nélkül nu fără niciun не нет ни нельзя никогда без ні немає ніколи няма δεν μην χωρίς όχι değil yok
    hayır לא אין בלי ללא لا ليس ليست غير لم لن بدون دون نه نیست नहीं बिना मत không chưa tidak bukan tanpa belum
    jangan
    """,
    )
)
# Syllables that negate wherever they stand; whether it is (是否) and A-not-A (能不能) ask, and do not deny.
SYLLABLES = re.compile(
    r"[不没沒無无未勿莫禁毋]|非(?!常)|(?<![是能可])否|ない|ません|なし|(?<!\w)안 |못|않|없|아니|ไม่|ไร้"
)
# Bounds, times and numbers: the parts of each are opposites, the words of a part one sense. An article is no number.
OPPOSITES = (
    "most maximum max högst maximalt höchstens maximal høyst højst máximo 最多 至多 最高 最大"
    "/ least minimum min minst lägst mindestens minimal mínimo 最少 至少 最低 最小",
    "more mer mera above mehr más 以上 超过 / less fewer mindre below weniger moins menos 以下 低于",
    "before före innan vor bevor før avant antes 以前 之前"
    "/ after efter nach nachdem etter après después 以后 之后 以後 之後",
    "first första erste ersten premier première primero / second andra zweite zweiten deuxième segundo"
    "/ third tredje dritte dritten troisième tercero",
    "one / two två zwei deux dos / three tre drei trois tres / four fyra vier quatre cuatro / five fem fünf cinq cinco"
    "/ six sex sechs seis / seven sju sieben sept siete / eight åtta acht huit ocho / nine nio neun neuf nueve"
    "/ ten tio zehn dix diez",
)
SENSES = {
    word: (number, part)
    for number, parts in enumerate(OPPOSITES)
    for part, words in enumerate(parts.split("/"))
    for word in words.split()
}
SENSED = re.compile(
    r"\d ?[a-z](?!\w)|(?-i:(?<!\w)[IVX]{2,}(?!\w))"  # 5 a; IV
    rf"|(?<!\w)(?:{'|'.join(filter(str.islower, SENSES))})(?!\w)"
    rf"|{'|'.join(word for word in SENSES if not word.islower())}",
    re.IGNORECASE,
)
NEGATING = re.compile(r"^(?:un|dis|des|de|i[nmlr]|non|on|nie|ne|u|o|не)(?=\w{4})")
JOINING = frozenset(["and", "or", "och", "eller", "og", "und", "oder", "et", "ou", "y", "和", "或", "与", "與", "及"])
BETWEEN, AROUND = re.compile(r"[\s/–—-]+"), ".,;:!?()[]{}*_\"'“”„«»‘¿¡…।،؟"
EITHER = re.compile(r"(.)[不没沒]\1")
ALIKE = 0.8  # similarity of characters from where on answers are copies of each other
COVERED = 0.7  # of an answer: the share that another one says, too, from where on that one holds it


def marks_of(text: str) -> list[str]:
    """The different numbers and signs in a text, and its negations as often as they come, sorted; width folded."""
    folded = unicodedata.normalize("NFKC", text)
    return sorted(set(MARK.findall(folded))) + ["not"] * denials(folded)


def denials(text: str) -> int:
    """How often a text negates."""
    folded = EITHER.sub(r"\1", unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))
    words = (word.strip(AROUND) for word in BETWEEN.split(folded))
    return sum(word in NEGATIONS or word.endswith("n't") for word in words) + len(SYLLABLES.findall(folded))


def opposed(one: str, other: str) -> bool:
    """Whether two questions have opposite words, one negates a word of the other, or what they name changes places."""
    mine, theirs = _senses(one) - _senses(other), _senses(other) - _senses(one)
    if {kind for kind, _ in mine} & {kind for kind, _ in theirs}:
        return True
    lacks, extra = _words(one) - _words(other), _words(other) - _words(one)
    return any(_negates(a, b) or _negates(b, a) for a in lacks for b in extra) or _swapped(_tokens(one), _tokens(other))


@lru_cache(maxsize=4096)
def _senses(text: str) -> frozenset[tuple[int, int | str]]:
    """The kind and part of each of its words in OPPOSITES; a letter or numeral of a section is of a kind of its own."""
    found = map(str.casefold, SENSED.findall(unicodedata.normalize("NFKC", text)))
    return frozenset(SENSES.get(mark, (-1, mark.replace(" ", ""))) for mark in found)


def _negates(word: str, other: str) -> bool:
    """Whether a word without its negating prefix is another, or that is one with a prefix too: disable and enable."""
    rest = NEGATING.sub("", word)
    return (
        rest != word and other.endswith(rest) and other.removesuffix(rest) in ("", "em", "en", "ex", "im", "in", "out")
    )


def _swapped(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one text has words x m y where the other has y m x; not where m joins them."""
    if one == other or sorted(one) != sorted(other):
        return False
    unequal = [at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    left, right = (words[unequal[0] : unequal[-1] + 1] for words in (one, other))
    sizes = range(1, len(left))
    heads, tails = [n for n in sizes if left[:n] == right[-n:]], [n for n in sizes if left[-n:] == right[:n]]
    middles = [left[x:-y] for x in heads for y in tails if x + y < len(left) and left[x:-y] == right[y:-x]]
    return any(JOINING.isdisjoint(middle) for middle in middles)


def differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two of nearly equal marks, each a question and an answer, say different things."""
    if not _other_words(one[0], other[0]):
        return False
    if _contradict(one[1], other[1]) or _roles_change(one, other):
        return True
    shared = (_words(one[0]) & _words(other[0])).total()
    return 2 * shared >= max(_words(one[0]).total(), _words(other[0]).total()) and not _agree(one[1], other[1])


def _roles_change(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether each question names what only the other's answer names: the tenant fails, and the landlord may act."""
    (asked, said), (asked_too, said_too) = (tuple(map(_words, pair)) for pair in (one, other))
    mine, theirs = asked - asked_too, asked_too - asked
    return bool(mine and theirs) and mine <= said_too - said and theirs <= said - said_too


@lru_cache(maxsize=4096)
def _words(text: str) -> Counter[str]:
    return Counter(_tokens(text))


@lru_cache(maxsize=4096)
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(word for kind, piece in pieces(text) for word in (piece if kind == "run" else [piece]))


def _other_words(one: str, other: str) -> bool:
    left, right = _words(one) - _words(other), _words(other) - _words(one)
    return not all(
        any(related(word, found) for found in others)
        for words, others in ((left, right), (right, left))
        for word in words
    )


def _contradict(one: str, other: str) -> bool:
    left, right = (set(MARK.findall(unicodedata.normalize("NFKC", text))) for text in (one, other))
    return bool(denials(one)) != bool(denials(other)) or bool(left - right and right - left)


def _agree(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    copies = Indel.normalized_similarity(normalise(one), normalise(other)) >= ALIKE
    return copies or groundedness(shorter, longer) >= COVERED
