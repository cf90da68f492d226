"""Cutting a document into passages of a stated number of tokens, with their character spans kept.

A passage ends where a paragraph ends if one does in its last half, else where a sentence does, else between words,
else between two tokens; writing without spaces has only the first two and the last. Passages overlap, and the next one
begins at a sentence within the overlap where there is one.

Tokens are counted in the document as a whole. A passage that is encoded on its own may have one or two tokens more,
where a merge over its border is lost.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any

from tasks.core.records import Document

PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=[#|*-])")
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)|[。！？；][\"'”’」』）]*|\n")
WORD_END = re.compile(r"(?=\s)")


@dataclass(frozen=True)
class Chunk:
    """A passage: `text` is the document's text from character `start` up to `end`."""

    start: int
    end: int
    text: str


def chunk(document: Document, tokenizer: Any, tokens: int, overlap: int) -> list[Chunk]:
    """Cut a document into passages.

    Args:
        document: its text has the spans' characters.
        tokenizer: a fast tokenizer of transformers, which tells the offsets of its tokens.
        tokens: the most a passage has, counted in the encoded document.
        overlap: the most tokens that two passages share.

    Raises:
        ValueError: overlap is not below tokens.
    """
    if not 0 <= overlap < tokens:
        raise ValueError(f"overlap {overlap} must be below tokens {tokens}")
    text = document.text
    starts = _token_starts(text, tokenizer)
    paragraphs, sentences, words = (_ends(pattern, text) for pattern in (PARAGRAPH_END, SENTENCE_END, WORD_END))
    chunks: list[Chunk] = []
    begin = end = 0
    while end < len(text):
        while begin < len(text) and text[begin].isspace():
            begin += 1
        end = _end(begin, end, tokens, starts, [paragraphs, sentences, words], len(text))
        piece = text[begin:end]
        right = begin + len(piece.rstrip())
        if right > max(begin, chunks[-1].end if chunks else 0):  # not where only space is new
            chunks.append(Chunk(begin, right, text[begin:right]))
        begin = _next(begin, end, tokens, overlap, starts, [sentences, words])
    return chunks


def _token_starts(text: str, tokenizer: Any) -> list[int]:
    """The character each token begins at; tokens that are bytes of one character have the same."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [start for start, _ in encoded["offset_mapping"]]


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    return [found.end() for found in pattern.finditer(text)]


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
