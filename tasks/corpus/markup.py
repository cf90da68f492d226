"""What must not stand in a text that is trained on: HTML, and the marks that a chat template sets between roles.

HTML was copied along with the answer, and a model that learns it writes it. A role mark in a text is worse: it lets
the text's writer speak as the system or the assistant. The marks of the common chat templates are looked for,
whichever model is trained; the tokenizer's own special tokens are checked once more where a text is rendered
(tasks/prompts.py).
"""

from __future__ import annotations

import re

_ELEMENTS = (
    "a|abbr|article|aside|b|blockquote|body|br|button|center|code|dd|div|dl|dt|em|embed|figure|font|footer|form|"
    "h[1-6]|head|header|hr|html|i|iframe|img|input|label|li|link|main|meta|nav|ol|p|pre|script|section|small|span|"
    "strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|u|ul|video"
)
# A tag has attributes with values or none at all: "a < b and c > d" is no tag. Bounded, or a long line takes minutes.
HTML = re.compile(
    rf"</?(?:{_ELEMENTS})(?:\s[^<>]{{0,500}}=[^<>]{{0,500}})?\s?/?>|<!--|<!doctype\s|&(?:nbsp|amp|lt|gt|quot|#\d{{1,6}});",
    re.IGNORECASE,
)
ROLE_MARKS = re.compile(
    r"<[|｜][^<>|｜\n]{1,40}[|｜]>"  # ChatML, Llama 3, Phi, DeepSeek
    r"|<(?:start|end)_of_(?:turn|text|image)>"  # Gemma
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\]|<</?SYS>>|</?s>"  # Llama 2, Mistral
    r"|<(?:bos|eos|pad|unk|mask)>|\[(?:CLS|SEP|gMASK)\]",
)


def html_in(text: str) -> str:
    """The first piece of HTML in a text, or nothing."""
    return _first(HTML, text)


def role_mark_in(text: str) -> str:
    """The first mark of a chat template in a text, or nothing."""
    return _first(ROLE_MARKS, text)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group()[:80] if found else ""
