"""A PDF's pages as one running text: heads and page numbers left out, words and paragraphs that lines cut joined again.

Limits: a head of more than `EDGE` lines, or one that stands on a single page, is text; so are a page's number that
stands on a single page, and a foot that is a sentence on a page of few lines. Where a line ends in a hyphen, the text's
other words tell whether the word has one; where they do not, it is taken for the typesetter's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

EDGE = 3  # lines at the top and at the bottom of a page that may be its head or its number
APART = 2  # pages: heads of left and right pages take turns
LONG_HEAD = 12  # letters beside a number that counts pages at the top, else it may be an article's or a chapter's
NUMBER = re.compile(r"\d+")
PAGE = re.compile(
    r"\b(?:page|pages|p|pg|seite|sida|side|sid|s|página|pagina|pág|pag|strona|str|страница|стр|sivu|oldal|trang)\b"
    r"|[页頁쪽]|ページ|صفحة"
)
LEAF = re.compile(r"(?<=第)\s*[一二三四五六七八九十百零〇]+\s*(?=[页頁])|^\W*[ivxlc]+\W*$")
# A line that begins a new paragraph of its own: bullets, numbers of lists, articles and sections, headings.
NEW_PARAGRAPH = re.compile(
    r"[-*•–—◦▪#|]|\(?\d{1,3}[.)、]|[（(]?[一二三四五六七八九十百零〇]+[）)、]|第.{1,9}[章节節条條]"
)
ENDS = re.compile(r"[.!?:;。！？：；…][\"'”’」』）)\]]*$")
SHORT_LINE = 0.6  # of the longest line: a line this short ended because its paragraph did
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
CUT = re.compile(r"(?P<word>\w+(?:[-‐]\w+)*)[-‐]$")
REST = re.compile(r"\w+")
# Behind these a hyphen stands for what two words share: Vor- und Nachteile, pre- and post-war.
SHARING = re.compile("and|or|to|und|oder|bis|och|eller|og|en|of|ou|et|y|o|e|i|и|или", re.IGNORECASE)
# Words that mostly keep their hyphen to what they are put before.
KEEPING = re.compile("self|well|half|vice|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety", re.IGNORECASE)


class _Edge(NamedTuple):
    """A line at a page's top (+1) or bottom (-1): its words without numbers, and these."""

    side: int
    words: str
    numbers: tuple[int, ...]


def without_heads(pages: Sequence[Sequence[str]]) -> list[list[str]]:
    """The pages' lines without those at an edge that come again on the next, with the same or counting numbers."""
    edges = [_edges(lines) for lines in pages]
    kept = []
    for number, lines in enumerate(pages):
        others = [
            (other - number, edge)
            for other in range(max(number - APART, 0), min(number + APART + 1, len(pages)))
            for edge in edges[other].values()
            if other != number
        ]
        filled = [place for place, line in enumerate(lines) if line]
        repeated = {
            place
            for place, edge in edges[number].items()
            if any(_repeats(edge, o, apart) for apart, o in others)
            and not _ends_text(lines[place], page_lines=len(filled))
        }
        inside = [n for n, place in enumerate(filled) if place not in repeated]
        first, last = (filled[inside[0]], filled[inside[-1]]) if inside else (0, -1)
        kept.append(list(lines[first : last + 1]))
    return kept


def _edges(lines: Sequence[str]) -> dict[int, _Edge]:
    filled = [place for place, line in enumerate(lines) if line]
    bottom, top = dict.fromkeys(filled[-EDGE:], -1), dict.fromkeys(filled[:EDGE], 1)
    return {place: _edge(lines[place], side) for place, side in (bottom | top).items()}


def _edge(line: str, side: int) -> _Edge:
    folded = LEAF.sub("·", unicodedata.normalize("NFKC", line).casefold())
    words = " ".join(NUMBER.sub("·", folded).split())
    return _Edge(side, words, tuple(map(int, NUMBER.findall(folded))))


def _repeats(edge: _Edge, other: _Edge, apart: int) -> bool:
    if edge[:2] != other[:2]:
        return False
    steps = {second - first for first, second in zip(edge.numbers, other.numbers, strict=True)}
    if not steps <= {0, apart}:
        return False
    letters = sum(map(str.isalpha, edge.words))
    counts_pages = edge.side < 0 or not letters or letters >= LONG_HEAD or PAGE.search(edge.words)
    return steps <= {0} or bool(counts_pages)


def _ends_text(line: str, page_lines: int) -> bool:
    """Whether a line ends a sentence that began before it, or stands on a page that is nothing but edges."""
    ends = ENDS.search(line) and any(map(str.isalpha, line)) and not PAGE.search(line.casefold())
    return bool(ends) and (line[0].islower() or page_lines <= 2 * EDGE)


def joined_lines(text: str) -> str:
    """A PDF's text with the lines of one paragraph joined: by a space, between two East Asian characters by nothing.

    A line goes on in the next unless it ends a sentence, is much shorter than its page's longest, or the next one
    begins a list item, an article or a heading. A word that a hyphen cuts at a line's end is put together. A form feed
    parts two pages; a line goes on over it, too.
    """
    known = {word.casefold() for word in WORD.findall(text)}
    out: list[str] = []
    before, longest = "", 0
    for page in filter(None, text.split("\f")):
        lines = page.split("\n")
        for number, line in enumerate(lines):
            if before and line and not _breaks(before, line, longest):
                out[-1] = _joined(out[-1], line, known)
            else:
                out += ["", line] if out and not number else [line]
            before, longest = line, max(map(len, lines))
    return "\n".join(out)


def _breaks(before: str, line: str, longest: int) -> bool:
    if CUT.search(before) and line[:1].isalnum():
        return False
    return bool(ENDS.search(before) or NEW_PARAGRAPH.match(line)) or len(before) < SHORT_LINE * longest


def _joined(before: str, line: str, known: set[str]) -> str:
    cut, rest = CUT.search(before), REST.match(line)
    if not cut or not rest:
        return before + ("" if _dense(before[-1]) and _dense(line[0]) else " ") + line
    if SHARING.fullmatch(rest.group()):
        return f"{before} {line}"
    return (before if _has_hyphen(cut["word"], line, rest.group(), known) else before[:-1]) + line


def _has_hyphen(word: str, line: str, rest: str, known: set[str]) -> bool:
    if not (word[-1].isalpha() and rest[0].isalpha()) or rest[0].isupper():
        return True
    one, two = f"{word}{rest}".casefold(), f"{word}-{rest}".casefold()
    if one in known or two in known:
        return two in known
    return "-" in word or line[len(rest) :].startswith("-") or bool(KEEPING.fullmatch(word))


def _dense(character: str) -> bool:
    """Whether a character belongs to a writing without spaces between words: wide or full-width ones do."""
    return unicodedata.east_asian_width(character) in "WF"
