"""What must not stand in a text that is trained on: HTML, and the marks that a chat template sets between roles.

HTML in code is what the answer speaks of; a role mark lets the text's writer speak as the system or the assistant, in
code too. Those of the common chat templates are looked for; the tokenizer's own are checked in tasks/text/prompts.py.
"""

from __future__ import annotations

import re
from html.entities import html5

# Every element of the HTML standard, obsolete ones too, with the roots of what it embeds (SVG, MathML).
_ELEMENTS = (
    "a|abbr|acronym|address|applet|area|article|aside|audio|b|base|basefont|bdi|bdo|bgsound|big|blink|blockquote|body|"
    "br|button|canvas|caption|center|cite|code|col|colgroup|command|data|datalist|dd|del|details|dfn|dialog|dir|div|dl|"
    "dt|em|embed|fieldset|figcaption|figure|font|footer|form|frame|frameset|h[1-6]|head|header|hgroup|hr|html|i|iframe|"
    "img|input|ins|isindex|kbd|keygen|label|legend|li|link|listing|main|map|mark|marquee|math|menu|menuitem|meta|meter|"
    "nav|nobr|noembed|noframes|noscript|object|ol|optgroup|option|output|p|param|picture|plaintext|pre|progress|q|rb|"
    "rp|rt|rtc|ruby|s|samp|script|search|section|select|slot|small|source|span|strike|strong|style|sub|summary|sup|svg|"
    "table|tbody|td|template|textarea|tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr|xmp"
)
_NAMES = rf"(?:{_ELEMENTS}|[a-z][\w.-]*:[a-z][\w.-]*)"  # Word's <o:p></o:p> too
# Those that mean something with neither attributes nor an end tag. Of the others one alone is a placeholder (git clone
# <link>), a header (#include <map>) or, right behind a word, a type: vector<object>, List<Label>.
_ALONE = "br|dd|dt|hr|li|p|td|th|tr|wbr"
_BOOLEAN = (
    "allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|download|hidden|inert|"
    "ismap|loop|multiple|muted|nomodule|noshade|novalidate|nowrap|open|playsinline|readonly|required|reversed|selected"
)
# A tag's attributes are one with a value or one that needs none, at least, or none at all: "a <b and c> d" is no tag.
TAG = re.compile(
    rf"</{_NAMES}\s*>"
    rf"|(?:(?<!\w)<(?:{_ALONE})|<(?-i:{_ALONE}|BR|HR|LI))\s*/?>|(?<!\w)<{_NAMES}\s*/>"
    rf"|(?<!\w)<(?P<name>{_NAMES})\s*>(?=[\s\S]{{0,1000}}?</(?P=name)\s*>)"
    rf"|<{_NAMES}\s(?=[^<>]{{0,500}}(?:=|\b(?:{_BOOLEAN})\b))[^<>]{{0,1000}}>"
    r"|<!--|<!doctype\s|<!\[CDATA\[|<\?xml\s",
    re.IGNORECASE,
)
# What Markdown shows as it stands: spans of code in a line, and fenced blocks.
CODE = re.compile(r"(?<!`)(`+)(?!`)[^\n]*?[^`\n]\1(?!`)|^[ \t>]*(`{3,}|~{3,})(?s:.*?)^[ \t>]*\2", re.MULTILINE)
REFERENCE = re.compile(r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);?")
ROLE_MARKS = re.compile(
    r"<[|｜][^<>|｜\s]{1,40}[|｜]>"  # ChatML, Llama 3, Phi, DeepSeek; with spaces it is F#
    r"|<(?:start|end)_of_(?:turn|text|image)>"  # Gemma
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS)\]|<</?SYS>>|</?s>"  # Llama 2, Mistral
    r"|<(?:bos|eos|pad|unk)>|\[gMASK\]"
)
# Thoughts as Qwen, DeepSeek, Seed, Magistral and Kimi mark them.
_KINDS = "(?:seed:)?(?:think|thinking|thoughts?|reasoning)"
THINKS = re.compile(rf"<{_KINDS}>|\[THINK\]|◁think▷", re.IGNORECASE)
THOUGHT = re.compile(rf".*(?:</{_KINDS}>|\[/THINK\]|◁/think▷)", re.IGNORECASE | re.DOTALL)


def html_in(text: str) -> str:
    """The first piece of HTML in a text outside its code, or nothing."""
    text = CODE.sub("`", text)
    return _first(TAG, text) or next((r for r in map(_known, REFERENCE.finditer(text)) if r), "")


def _known(reference: re.Match[str]) -> str:
    """A character reference that HTML knows; a name without its semicolon not where a URL's query would have it."""
    name = reference.group()[1:]
    in_query = not name.endswith(";") and reference.string.startswith("=", reference.end())
    return reference.group() if (name.startswith("#") or name in html5) and not in_query else ""


def role_mark_in(text: str) -> str:
    """The first mark of a chat template in a text, or nothing."""
    return _first(ROLE_MARKS, text)


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group()[:80] if found else ""
