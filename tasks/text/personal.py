"""Personal data in what users write is masked before it becomes training data: `<EMAIL>` in place of the address.

Found by patterns and check digits alone, without a language model: names of people and streets are not found. Word
boundaries do not exist between a Chinese character and a digit, so the patterns use look-arounds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Found(NamedTuple):
    """A piece of a text, and its kind; `sure` where its check digits are right."""

    sure: bool
    start: int
    end: int
    kind: str


def masked(text: str) -> tuple[str, list[str]]:
    """The text with personal data replaced by its kind in angle brackets, and the kinds found, in order."""
    found = [
        Found(check is not None, match.start(), match.end(), kind)
        for kind, (pattern, check) in PATTERNS.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
        if check is None or check(match.group())
    ]
    chosen: list[Found] = []
    for one in sorted(found, key=lambda one: not one.sure):  # of two that overlap the surer, of equals the longer one
        rivals = [other for other in chosen if one.start < other.end and other.start < one.end]
        if all(other.sure == one.sure and other.end - other.start < one.end - one.start for other in rivals):
            chosen = [other for other in chosen if other not in rivals] + [one]
    chosen.sort(key=lambda one: one.start)
    for one in reversed(chosen):
        text = f"{text[: one.start]}<{one.kind}>{text[one.end :]}"
    return text, [one.kind for one in chosen]


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        value = int(character) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def chinese_identity(number: str) -> bool:
    """Whether the last character checks a Chinese resident identity number (GB 11643-1999, ISO 7064 MOD 11-2)."""
    weights = [2 ** (17 - place) % 11 for place in range(17)]
    total = sum(weight * int(digit) for weight, digit in zip(weights, number[:17], strict=True))
    return "10X98765432"[total % 11] == number[17].upper()


def swedish_identity(number: str) -> bool:
    """Whether a Swedish personal number's last ten digits pass Luhn (Skatteverket, SKV 704)."""
    digits = re.sub(r"\D", "", number)[-10:]
    month, day = int(digits[2:4]), int(digits[4:6])
    return 1 <= month <= 12 and (1 <= day <= 31 or 61 <= day <= 91) and luhn(digits)


def iban(number: str) -> bool:
    """Whether an IBAN's check digits are right (ISO 13616, ISO 7064 MOD 97-10)."""
    compact = re.sub(r"\s", "", number).upper()
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def address(text: str) -> bool:
    """Whether four numbers are rather an address than a section of a regulation, such as 9.2.1.3."""
    return any(int(part) >= 10 for part in text.split("."))


# Entity → (pattern, check or None). (?<!\d) rather than \b: a Chinese character beside a digit is no boundary.
PATTERNS: dict[str, tuple[str, Callable[[str], bool] | None]] = {
    "EMAIL": (r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,24}", None),
    "CHINESE_ID": (r"(?<!\d)[1-9]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[\dXx](?![\dXx])",
                   chinese_identity),
    "PERSONAL_NUMBER": (r"(?<!\d)(?:19|20)?\d{6}[-+]?\d{4}(?!\d)", swedish_identity),
    "CARD": (r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", lambda text: luhn(re.sub(r"\D", "", text))),
    "IBAN": (r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?\d{1,3})?(?![A-Za-z0-9])", iban),
    "PHONE": (r"(?<![\d.])(?:\+|00)\d{1,3}(?:[ ()-]{0,2}\d){6,12}(?!\d)", None),
    "CHINESE_MOBILE": (r"(?<!\d)1[3-9]\d(?:[ -]?\d{4}){2}(?!\d)", None),
    "SWEDISH_PHONE": (r"(?<![\d-])0\d{1,3}[ -]\d{2,3}[ ]?\d{2}[ ]?\d{2,3}(?!\d)", None),
    "IP": (r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\d|\.\d)", address),
}  # fmt: skip
