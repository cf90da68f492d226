from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.page.handlers import KINDS
from serving.page.texts import LANGUAGES, TEXTS, choose_language, text

PAGE = Path(__file__).resolve().parents[2] / "serving/page"


def placeholders(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def test_no_text_lacks_a_language() -> None:
    assert {key: set(words) for key, words in TEXTS.items() if set(words) != set(LANGUAGES)} == {}
    assert [key for key, words in TEXTS.items() if not all(value.strip() for value in words.values())] == []


def test_every_language_fills_in_the_same_values() -> None:
    wrong = [
        key for key, words in TEXTS.items() if len({frozenset(placeholders(value)) for value in words.values()}) > 1
    ]
    assert wrong == []


def test_no_chinese_text_was_left_in_english() -> None:
    own = [key for key, words in TEXTS.items() if not re.search(r"[\u4e00-\u9fff]", words["zh"])]
    assert own == []


def test_every_text_is_used_and_every_key_that_is_used_exists() -> None:
    sources = "".join(path.read_text() for path in PAGE.glob("*.py") if path.name != "texts.py")
    by_kind = {f"{kind}_label" for kind in KINDS} | {f"save_{kind}" for kind in KINDS}
    assert [key for key in TEXTS if not re.search(rf'["\']{key}["\']', sources) and key not in by_kind] == []
    literal = re.findall(r'(?:text|_label|say)\(["\'](\w+)["\']', sources)
    assert [key for key in literal if key not in TEXTS] == []


def test_values_are_filled_in() -> None:
    assert text("version", "zh", version="12") == "版本 12"
    assert text("star", "en", count=3) == "3 of 5 stars"


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("sv-SE,sv;q=0.9,zh-TW;q=0.5,en;q=0.3", "zh"),
        ("sv-SE,sv;q=0.9", "en"),
        ("ZH-hans", "zh"),
        ("zh;q=0,en;q=0.1", "en"),
        ("zh;q=0", "en"),
        ("en;q=0.2, zh;q=0.7", "zh"),
        ("zh;q=broken,en;q=0.1", "en"),
        ("*", "en"),
    ],
)
def test_the_browser_chooses_the_language(header: str, language: str) -> None:
    assert choose_language(header) == language


@given(st.text(max_size=300))
def test_any_header_gives_a_language(header: str) -> None:
    assert choose_language(header) in LANGUAGES
