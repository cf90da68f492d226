"""Cells of a spreadsheet as people see them: 7.5%, 120.30, 13.04.2024 and not 0.075, 120.30000000000001 and a time.

Number formats are read as far as tables of text need them. A number in a form not known here (fractions, exponents)
comes with up to 15 digits, as in Excel's General, a date as ISO 8601. The decimal sign is the point.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from operator import eq, ge, gt, le, lt, ne
from typing import Any

# What stands in a format for itself: "text", \x, [$€-407]; and what is no text: [Red], _x and *x.
LITERAL = re.compile(r'"([^"]*)"|\\(.)|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]|[_*].')
SECTION_END = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*$)')
CONDITION = re.compile(r"\[(<=|>=|<>|<|>|=)(-?[\d.]+)\]")
COMPARE = {"<": lt, "<=": le, "=": eq, "<>": ne, ">": gt, ">=": ge}
DIGITS = re.compile(r"\.?[0#?](?:.*[0#?])?(,*)")  # from the first digit's place to the last; commas divide by 1000
ELAPSED = re.compile(r"\[(h+|m+|s+)\]", re.IGNORECASE)
SECONDS = {"h": 3600, "m": 60, "s": 1}
MINUTES = re.compile(r"h[^a-z]*mm?(?!m)|(?<!m)mm?(?=[^a-z]*s)")  # behind hours or before seconds m is no month
DATE_CODE = re.compile(r"([a-z0-9#?@])\1*")
DATE_PARTS = {
    "yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "m": "%m", "dddd": "%A", "ddd": "%a", "dd": "%d",
    "d": "%d", "hh": "%H", "h": "%H", "nn": "%M", "n": "%M", "ss": "%S", "s": "%S",
}  # fmt: skip


class ErrorCell(str):
    """What a cell shows that holds an error of its formula, such as #N/A: no value."""


def displayed(cell: Any) -> str:
    """The text of a cell of openpyxl; "" where it is empty, an ErrorCell where it holds an error."""
    from openpyxl.utils.escape import unescape

    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e":
        return ErrorCell(value)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, timedelta):
        return _duration(value, cell.number_format)
    if isinstance(value, datetime | date | time):
        return _moment(value, cell.number_format)
    if isinstance(value, int | float):
        return _number(value, cell.number_format or "General")
    return re.sub(r"\r\n?", "\n", unescape(str(value)))


def _duration(value: timedelta, form: str) -> str:
    """A time that has passed; its form counts hours, minutes or seconds beyond a day or an hour."""
    seconds = round(abs(value).total_seconds())
    counted = ELAPSED.sub(lambda unit: f'"{seconds // SECONDS[unit[1][0].lower()]:0{len(unit[1])}}"', form)
    shown = _in_parts(datetime.min + timedelta(seconds=seconds), re.sub("[mM]", "n", counted))
    return ("-" if value < timedelta() else "") + shown if shown else _duration(value, "[h]:mm:ss")


def _moment(value: datetime | date | time, form: str) -> str:
    known = form != "mm-dd-yy" and not ELAPSED.search(form)
    whole = isinstance(value, datetime) and value.time() == time()
    return (known and _in_parts(value, form)) or str(value.date() if isinstance(value, datetime) and whole else value)


def _in_parts(value: datetime | date | time, form: str) -> str:
    """A date or time part by part; "" where a part is not known."""
    bare, literals = _bare(SECTION_END.split(form)[0])
    bare = MINUTES.sub(lambda found: found[0].replace("m", "n"), bare.lower())
    if not {code[0] for code in DATE_CODE.finditer(bare)} <= DATE_PARTS.keys():
        return ""

    def part(code: re.Match[str]) -> str:
        shown = value.strftime(DATE_PARTS[code[0]])
        return shown.lstrip("0") or "0" if len(code[0]) == 1 else shown

    return _filled(DATE_CODE.sub(part, bare), literals)


def _bare(form: str) -> tuple[str, list[str]]:
    """A form with a null in the place of each text that stands for itself, and these; spaces stay."""
    literals: list[str] = []

    def keep(found: re.Match[str]) -> str:
        text = next((part for part in found.groups() if part), "")
        literals.extend([text] if text.strip() else [])
        return "\0" if text.strip() else text

    return LITERAL.sub(keep, form), literals


def _filled(bare: str, literals: list[str]) -> str:
    return re.sub("\0", lambda _: literals.pop(0), bare).strip()


def _number(value: int | float, form: str) -> str:
    sections = SECTION_END.split(form)[:3]
    bare, literals = _bare(_section(value, sections))
    digits = DIGITS.search(bare)
    plain = f"{value:.15g}" if isinstance(value, float) else str(value)
    if re.search(r"[/Ee@]|General|\..*\." if digits else r"[A-Za-z@]", bare):
        return plain
    sign = "-" if value < 0 and len(sections) == 1 else ""
    if not digits:
        return sign + _filled(bare, literals)
    number = abs(Decimal(f"{value:.15g}")) / 1000 ** len(digits[1]) * (100 if "%" in bare else 1)
    shown = _digits(number, digits[0].rstrip(","))
    if shown is None:
        return plain
    sign = sign if re.search("[1-9]", shown) else ""
    return sign + _filled(bare[: digits.start()] + shown + bare[digits.end() :], literals)


def _section(value: int | float, sections: list[str]) -> str:
    """The section of a form for a number, by condition or sign; General where it cannot be told."""
    conditions = [CONDITION.search(section) for section in sections]
    if not any(conditions):
        place = 1 if value < 0 else 2 if value == 0 else 0
        return sections[place if place < len(sections) else 0]
    for section, condition in zip(sections, conditions, strict=True):
        if COMPARE[condition[1]](value, float(condition[2])) if condition else section is sections[-1]:
            return section if value >= 0 else "General"  # which sign it shows hangs on the conditions
    return "General"


def _digits(number: Decimal, form: str) -> str | None:
    """A number in the places of its form, from the right, halves rounded away from zero; None where none fits."""
    whole, _, decimals = form.partition(".")
    if decimals.strip("0#?") or not re.fullmatch(r"[0#?,]*[0#?]|[^,]*", whole):
        return None
    front, _, back = f"{number.quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP):f}".partition(".")
    while len(back) > decimals.count("0") and back.endswith("0"):
        back = back[:-1]
    front = front.lstrip("0").zfill(whole.count("0"))
    shown = re.sub(r"(?<=\d)(?=(\d{3})+$)", ",", front) if "," in whole else _spread(front, whole)
    return shown + f".{back}" if back and shown is not None else shown


def _spread(digits: str, form: str) -> str | None:
    """Digits in their places from the right; the first takes all that are left. None where a mark stands before all."""
    rest, shown = [*digits], ""
    for mark in reversed(form):
        if mark in "0#?":
            shown = (rest.pop() if rest else "") + shown
        elif rest:
            shown = mark + shown
        elif not mark.isspace():
            return None
    return "".join(rest) + shown
