"""What tells two examples apart though they share nearly all their characters, and all their meaning to an embedder.

Numbers, signs and negations of a question do always: article 73 and 74, C and C++, with and without. Another word does
where the answers differ, too: the eastern jetty and the western one. Other forms of a word and another order do not.

Limits: a negation is a word, or in Chinese, Japanese, Korean and Thai a syllable, of the lists below; a word's negating
prefix or ending (unpaid) is another word. Languages without a list have signs and numbers only.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from rapidfuzz.distance import Indel

from tasks.corpus.grounding import groundedness, pieces, related
from tasks.curate.near import normalise

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


def differ(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two of nearly equal marks, each a question and an answer, say different things."""
    if not _other_words(one[0], other[0]):
        return False
    if _contradict(one[1], other[1]):
        return True
    shared = (_words(one[0]) & _words(other[0])).total()
    return 2 * shared >= max(_words(one[0]).total(), _words(other[0]).total()) and not _agree(one[1], other[1])


@lru_cache(maxsize=4096)
def _words(text: str) -> Counter[str]:
    """Its words; of writing without spaces the characters."""
    return Counter(word for kind, piece in pieces(text) for word in (piece if kind == "run" else [piece]))


def _other_words(one: str, other: str) -> bool:
    """Whether a word of one text stands in no form in the other."""
    left, right = _words(one) - _words(other), _words(other) - _words(one)
    return not all(
        any(related(word, found) for found in others)
        for words, others in ((left, right), (right, left))
        for word in words
    )


def _contradict(one: str, other: str) -> bool:
    """Whether one denies and the other does not, or each has a number or sign that the other lacks."""
    left, right = (set(MARK.findall(unicodedata.normalize("NFKC", text))) for text in (one, other))
    return bool(denials(one)) != bool(denials(other)) or bool(left - right and right - left)


def _agree(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    copies = Indel.normalized_similarity(normalise(one), normalise(other)) >= ALIKE
    return copies or groundedness(shorter, longer) >= COVERED
