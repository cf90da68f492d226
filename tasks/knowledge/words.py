"""Words as they are searched: small letters in compatibility form, Chinese cut by jieba, every other writing as it is.

Writing without spaces between words other than Chinese (kana, Thai, Khmer, ...) is searched by pairs of characters.
"""

from __future__ import annotations

import unicodedata

import regex

CHINESE = "㐀-䶿一-鿿豈-﫿"
SYLLABLES = "฀-໿က-႟ក-៿぀-ヿ"
# Letters come with their marks: the vowels of Devanagari and Arabic are marks.
_SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{CHINESE}{SYLLABLES}]]+"
_RUNS = regex.compile(rf"[{CHINESE}]+|[{SYLLABLES}]+|{_SPACED}", regex.VERSION1)
_CHINESE = regex.compile(f"[{CHINESE}]")
_SYLLABLES = regex.compile(f"[{SYLLABLES}]")


def words_of(text: str) -> list[str]:
    """The words of a text, in order; Chinese ones of three characters and more come with the words within them."""
    words: list[str] = []
    for run in _RUNS.findall(unicodedata.normalize("NFKC", text).casefold()):
        if _CHINESE.match(run):
            words += _cut(run)
        elif _SYLLABLES.match(run) and len(run) > 1:
            words += [run[place : place + 2] for place in range(len(run) - 1)]
        else:
            words.append(run)
    return words


def _cut(run: str) -> list[str]:
    import jieba

    jieba.setLogLevel("WARNING")
    return list(jieba.cut_for_search(run))
