"""A Word file in the form that mammoth reads whole: what it passes over is written as text runs that it knows.

Moved text, simple fields, equations and text boxes without a fallback become runs; struck and hidden text goes, as the
deleted does; a numbered paragraph gets the number that Word shows, behind `LISTED`, which the reader takes out with the
list's own bullet. Limits: numbers in other writings than Latin, Roman and Chinese are digits; text that only its style
raises, strikes or hides is not seen as such.
"""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

LISTED = "\U000101d0"  # a printable sign that no living writing has: parsers drop the private ones
_KNOWN_AS = {"cr": "br", "ptab": "tab"} | dict.fromkeys(
    ("moveTo", "fldSimple", "customXml", "bdo", "dir", "oMathPara", "ruby", "rubyBase"), "ins"
)
_JOINED_BY = {"f": "/", "func": " ", "m": "; ", "mr": ", ", "eqArr": "; "}  # parts of an equation
_SMALL = "0123456789+-−=()ni,. –"
_RAISED = {
    "sup": str.maketrans(_SMALL, "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿⁱ,. –"),
    "sub": str.maketrans(_SMALL, "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎ₙᵢ,. –"),
}
_ROMAN = [(100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")]


def readable(path: Path) -> BytesIO:
    """The file once more, for mammoth."""
    from lxml import etree

    copy = BytesIO()
    with ZipFile(path) as archive, ZipFile(copy, "w") as out:
        parts = {name: archive.read(name) for name in archive.namelist()}
        roots = {n: etree.fromstring(content) for n, content in parts.items() if re.fullmatch(r"word/[^/]+\.xml", n)}
        for root in roots.values():
            _write_as_known(root)
        for body in (found for root in roots.values() for found in root.findall("{*}body")):
            _write_numbers(body, roots)
        for name, content in parts.items():
            out.writestr(name, etree.tostring(roots[name]) if name in roots else content)
    copy.seek(0)
    return copy


def raised(text: str, place: str) -> str:
    """A text above ("sup") or below ("sub") the line: as such characters, else behind ^ or _."""
    if all(ord(character) in _RAISED[place] for character in text):
        return text.translate(_RAISED[place])
    return ("^" if place == "sup" else "_") + (text if len(text) == 1 else f"({text})")


def _write_as_known(root: Any) -> None:
    word = root.tag.split("}")[0] + "}"
    for gone in [node for node in root.iter("{*}moveFrom", "{*}del") if len(node)]:
        gone.getparent().remove(gone)
    for run in filter(_unseen, list(root.iter("{*}r"))):
        run[:] = [*run.findall("{*}fldChar"), *run.findall("{*}instrText")]  # a field must end where it begins
    for choice in [node for node in root.iter("{*}Choice") if node.find(".//{*}txbxContent") is not None]:
        choice.getparent()[:] = [choice]
        choice.tag = choice.tag.replace("Choice", "Fallback")
    for drawing in [node for node in root.iter("{*}drawing") if node.find(".//{*}txbxContent") is not None]:
        drawing[:] = drawing.findall(".//{*}txbxContent")
        drawing.tag = word + "pict"
    for math in list(root.iter("{*}oMath")):
        formula = _linear(math)
        math[:] = [math.makeelement(word + "t")]
        math.tag, math[0].text = word + "r", formula
    for node in root.iter(*("{*}" + name for name in _KNOWN_AS)):
        node.tag = word + _KNOWN_AS[_name(node)]


def _unseen(run: Any) -> bool:
    marks = [mark for name in ("strike", "dstrike", "vanish") for mark in run.findall("{*}rPr/{*}" + name)]
    return any(_said(mark) not in ("0", "false", "off") for mark in marks)


def _linear(math: Any) -> str:
    name = _name(math)
    if name == "t":
        return math.text or ""
    parts = [part for part in map(_linear, math) if part]
    if name == "f":
        parts = [part if len(part) == 1 or part.isalnum() else f"({part})" for part in parts]
    text = _JOINED_BY.get(name, "").join(parts)
    if name in ("sup", "sub", "deg", "lim"):
        return text and raised(text, "sup" if name in ("sup", "deg") else "sub")
    if name == "nary":
        return _said(math, "{*}naryPr/{*}chr", other="∫") + text
    if name == "acc":
        return text + _said(math, "{*}accPr/{*}chr", other="\u0302")
    if name == "rad":
        return "".join(parts[:-1]) + f"√({parts[-1]})" if parts else ""
    if name == "d":
        signs = zip(("beg", "sep", "end"), "(|)", strict=True)
        opens, between, closes = (_said(math, f"{{*}}dPr/{{*}}{place}Chr", other=sign) for place, sign in signs)
        return opens + between.join(parts) + closes
    return text


def _write_numbers(body: Any, roots: dict[str, Any]) -> None:
    """The numbers of lists and headings as text; lists of one kind count on together unless set to begin again."""
    defined = [root for root in roots.values() if _name(root) in ("numbering", "styles")]
    nodes = [node for root in defined for node in root.iter("{*}num", "{*}abstractNum", "{*}style")]
    known = {(_name(node), _said(node, name=_name(node) + "Id")): node for node in nodes}
    counts: dict[str, dict[int, int]] = {}
    begun = set()
    for paragraph in body.iter("{*}p"):
        number, level = _list_of(paragraph, known)
        kind = _said(known.get(("num", number)), "{*}abstractNumId")
        if link := _said(known.get(("abstractNum", kind)), "{*}numStyleLink"):
            number = _said(known.get(("style", link)), "{*}pPr/{*}numPr/{*}numId")
            kind = _said(known.get(("num", number)), "{*}abstractNumId")
        used = [known[key] for key in (("abstractNum", kind), ("num", number)) if key in known]
        levels = {int(_said(at, name="ilvl", other="0")): at for node in used for at in node.iter("{*}lvl")}
        if level not in levels or _said(levels[level], "{*}numFmt") == "bullet":
            continue
        count = counts.setdefault(kind, {})
        again = {_said(n, name="ilvl"): _said(n, "{*}startOverride") for n in used[-1].iter("{*}lvlOverride")}
        if again.get(str(level)) and (number, level) not in begun:
            count.pop(level, None)
        begun.add((number, level))
        first = int(again.get(str(level)) or _said(levels[level], "{*}start", other="1"))
        count[level] = count.get(level, first - 1) + 1
        for deeper in [place for place in count if place > level]:
            del count[deeper]
        _prefix(paragraph, _label(levels, level, count))


def _list_of(paragraph: Any, known: dict[tuple[str, str], Any]) -> tuple[str, int]:
    """The list that a paragraph or its style belongs to, by number, and the level; an empty number if to none."""
    number, level, holder = "", "", paragraph
    if any(paragraph.find("{*}pPr/{*}rPr/{*}" + name) is not None for name in ("del", "moveFrom")):
        return "", 0
    for _ in range(12):  # styles are based on others, in a damaged file perhaps in a ring
        number = number or _said(holder, "{*}pPr/{*}numPr/{*}numId")
        level = level or _said(holder, "{*}pPr/{*}numPr/{*}ilvl")
        holder = known.get(("style", _said(holder, "{*}pPr/{*}pStyle") or _said(holder, "{*}basedOn")))
    return number, int(level or 0)


def _label(levels: dict[int, Any], level: int, count: dict[int, int]) -> str:
    def shown(found: re.Match[str]) -> str:
        place = int(found[1]) - 1
        legal = levels[level].find("{*}isLgl") is not None
        return written(count.get(place, 1), "" if legal else _said(levels.get(place), "{*}numFmt"))

    return re.sub(r"%([1-9])", shown, _said(levels[level], "{*}lvlText"))


def written(number: int, form: str) -> str:
    """A list's number in one of Word's formats."""
    if form.endswith("Letter") and number > 0:
        text = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
    elif form.endswith("Roman") and 0 < number < 400:
        text = ""
        for value, sign in _ROMAN:
            text += sign * (number // value)
            number %= value
    elif re.match("chinese|japaneseCounting|taiwaneseCounting", form) and 0 < number < 100:
        tens, ones = (["", *"一二三四五六七八九"][digit] for digit in divmod(number, 10))
        text = ("" if tens == "一" else tens) + ("十" if tens else "") + ones
    else:
        text = f"{number:02}" if form == "decimalZero" else str(number)
    return text.upper() if form.startswith("upper") else text


def _prefix(paragraph: Any, label: str) -> None:
    word = paragraph.tag.split("}")[0] + "}"
    run = paragraph.makeelement(word + "r")
    text = run.makeelement(word + "t")
    text.text = LISTED + (label and label + " ")
    run.append(text)
    paragraph.insert(0 if paragraph.find("{*}pPr") is None else 1, run)


def _name(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]


def _said(node: Any, path: str = ".", name: str = "val", other: str = "") -> str:
    """An attribute of what stands at a path, in whichever namespace; else the other value."""
    found = node.find(path) if node is not None else None
    return next((v for k, v in found.items() if k.rpartition("}")[2] == name), other) if found is not None else other
