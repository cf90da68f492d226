"""What is wrong with a teacher's reply before anybody asks whether it is true, and how lists are read out of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks.corpus.construct.teacher_prompts import TeacherPrompts
from tasks.text.markup import html_in, role_mark_in

if TYPE_CHECKING:
    from tasks.corpus.teacher.cache import Reply

# Where a refusal stands: models lead with it.
OPENING = 60
# "1.", "(2)", "3、", "-", "•", "Q1:" and so on, with or without bold marks.
MARK = r"(?:\(?\d{1,3}[.)、:：．]\)?|（\d{1,3}）|[-*•·–]|[Qq]\d{0,3}[.:：])"
ITEM = re.compile(rf"^\W{{0,4}}{MARK}[ \t*_]*(?P<text>\S.*)$|^(?P<plain>\S.*)$")


class Problem(NamedTuple):
    """Why something is dropped; `detail` is what was found."""

    reason: str
    detail: str = ""


def problem_with(reply: Reply, prompts: TeacherPrompts) -> Problem | None:
    """Why a reply cannot be used; None where it can."""
    text = reply.text.strip()
    if reply.error is not None:
        return Problem("no reply", reply.error)
    if reply.finish_reason == "content_filter":
        return Problem("refused", text or "the endpoint's content filter")
    if not text:
        return Problem("empty reply")
    opening = text[:OPENING].casefold().replace("’", "'")
    if found := next((word for word in prompts.refusals if word.casefold() in opening), None):
        return Problem("refused", found)
    if reply.finish_reason == "length":
        return Problem("cut short", "at the limit of construct.teacher.max_tokens")
    return unclean(text)


def unclean(text: str) -> Problem | None:
    """Marks between roles, and HTML; None where there are none."""
    if found := role_mark_in(text):
        return Problem("role mark", found)
    if found := html_in(text):
        return Problem("HTML", found)
    return None


def mentioned(text: str, words: Sequence[str]) -> str | None:
    """The first of `words` that a text mentions, as a word's beginning where words have spaces between them.

    "graph" is in "graphs" and not in "paragraph"; 上述 is wherever it stands.
    """
    lowered = text.casefold()
    for word in words:
        begins = r"(?<!\w)" if word[0].isascii() else ""
        if re.search(begins + re.escape(word.casefold()), lowered):
            return word
    return None


def items(text: str, marked_only: bool = False) -> list[str]:
    """The lines of a list without numbers, bullets and bold marks; `marked_only`: lines that have one."""
    found = []
    for line in text.splitlines():
        match = ITEM.match(line.strip())
        if match and (match["text"] or not marked_only):
            found.append((match["text"] or match["plain"]).strip(" *_\t"))
    return [item for item in found if item]
