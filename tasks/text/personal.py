"""Personal data in what users write is masked before it becomes training data: `<EMAIL>` in place of the address.

Presidio (Microsoft) finds it by patterns and checksums alone, without a language model: names of people and streets
are not found. Its own patterns end at word boundaries, which do not exist between a Chinese character and a digit, so
the recognisers here use look-arounds and leave the checksums to Presidio's classes or to the functions below.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from presidio_analyzer import EntityRecognizer


def masked(text: str) -> tuple[str, list[str]]:
    """The text with personal data replaced by its kind in angle brackets, and the kinds found, in order."""
    if not text.strip():
        return text, []
    found = [
        result
        for recogniser in _recognisers()
        for result in recogniser.analyze(text, recogniser.supported_entities, None)  # type: ignore[arg-type]  # no language model
    ]
    chosen: list[Any] = []
    for result in sorted(
        found, key=lambda result: -result.score
    ):  # of two that overlap, the surer one, and of equals the longer
        rivals = [other for other in chosen if result.start < other.end and other.start < result.end]
        if not rivals:
            chosen.append(result)
        elif all(r.score == result.score and r.end - r.start < result.end - result.start for r in rivals):
            chosen = [other for other in chosen if other not in rivals] + [result]
    for result in sorted(chosen, key=lambda r: -r.start):
        text = f"{text[: result.start]}<{result.entity_type}>{text[result.end :]}"
    return text, [result.entity_type for result in sorted(chosen, key=lambda r: r.start)]


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
PATTERNS: dict[str, tuple[str, Any]] = {
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


@functools.cache
def _recognisers() -> list[EntityRecognizer]:
    """One recogniser a kind, made once a process: importing Presidio takes some seconds."""
    os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
    from presidio_analyzer import Pattern, PatternRecognizer

    class Checked(PatternRecognizer):
        """A pattern whose match counts only if its check digits are right."""

        def validate_result(self, pattern_text: str) -> bool | None:
            """True and False are certain; None leaves the pattern's own score."""
            check = PATTERNS[self.supported_entities[0]][1]
            return None if check is None else bool(check(pattern_text))

    return [Checked(supported_entity=name, patterns=[Pattern(name, PATTERNS[name][0], 0.5)]) for name in PATTERNS]
