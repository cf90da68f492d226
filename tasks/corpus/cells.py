"""Cells of a spreadsheet as people see them: 7.5%, 120.30, 13.04.2024 and not 0.075, 120.30000000000001 and a time.

Number formats are read as far as tables of text need them: decimals, thousands, percent, leading zeros, signs of
currency, dates and times. A number in a form not known here (fractions, exponents) comes with up to 15 digits, as
Excel's own General shows it, a date as ISO 8601. The decimal sign is the point: which one Excel shows hangs on the
machine and not on the file.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

# What stands in a format for itself: "text", \x, [$€-407]; and what is no text: [Red], _x and *x.
LITERAL = re.compile(r'"([^"]*)"|\\(.)|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]|[_*].')
DIGITS = re.compile(r"[#0,]*[#0](?:\.[#0]+)?(,*)")
DATE_PARTS = {
    "yyyy": "%Y", "yy": "%y", "mmmm": "%B", "mmm": "%b", "mm": "%m", "dddd": "%A", "ddd": "%a", "dd": "%d",
    "hh": "%H", "ss": "%S",
}  # fmt: skip


class ErrorCell(str):
    """What a cell shows that holds an error of its formula, such as #N/A: no value."""


def displayed(cell: Any) -> str:
    """The text of a cell of openpyxl; "" where it is empty, an ErrorCell where it holds an error."""
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e":
        return ErrorCell(value)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime | date | time):
        return _moment(value, cell.number_format)
    return _number(value, cell.number_format or "") if isinstance(value, int | float) else str(value)


def _moment(value: datetime | date | time, form: str) -> str:
    """A date or time in its cell's form; built-in forms, which differ by country, as ISO 8601."""
    parts = re.findall(r"[a-z]+|[^a-z]+", LITERAL.sub(r"\1\2", form.split(";")[0]).casefold())
    wanted = [part for part in parts if part.isascii() and part.isalpha()]
    if form == "mm-dd-yy" or not wanted or not all(part in DATE_PARTS or part in ("d", "m", "h") for part in wanted):
        whole = isinstance(value, datetime) and value.time() == time()
        return str(value.date() if isinstance(value, datetime) and whole else value)
    text, before = "", ""
    for part in parts:
        minutes = part in ("mm", "m") and before in ("hh", "h")
        before = part if part.isalpha() else before
        code = "%M" if minutes else DATE_PARTS.get(part, {"d": "%d", "m": "%m", "h": "%H"}.get(part, ""))
        shown = value.strftime(code) if code else part
        text += shown.lstrip("0") or "0" if part in ("d", "m", "h") else shown
    return text.strip()


def _number(value: int | float, form: str) -> str:
    sections = form.split(";")
    negative = value < 0 and len(sections) > 1
    form = sections[1 if negative else 0]
    literals: list[str] = []

    def keep(found: re.Match[str]) -> str:
        literals.append(next((part for part in found.groups() if part is not None), ""))
        return "\0"

    bare = LITERAL.sub(keep, form)
    digits = DIGITS.search(bare)
    if not digits or re.search(r"[/?Ee@]|General", bare):
        return f"{value:.15g}" if isinstance(value, float) else str(value)
    number = Decimal(f"{abs(value) if negative else value:.15g}") / 1000 ** len(digits[1])
    shown = bare[: digits.start()] + _digits(number * 100 if "%" in bare else number, digits[0]) + bare[digits.end() :]
    return re.sub("\0", lambda _: literals.pop(0), shown).strip()


def _digits(number: Decimal, form: str) -> str:
    """A number with the decimals, thousands and leading zeros of its form, halves rounded away from zero."""
    whole, _, decimals = form.rstrip(",").partition(".")
    text = f"{number.quantize(Decimal(1).scaleb(-len(decimals)), ROUND_HALF_UP):{',' if ',' in whole else ''}f}"
    front, _, back = text.lstrip("-").partition(".")
    while len(back) > decimals.count("0") and back.endswith("0"):
        back = back[:-1]
    sign = "-" if number < 0 and re.search(r"[1-9]", text) else ""
    return sign + front.zfill(whole.count("0")) + (f".{back}" if back else "")
