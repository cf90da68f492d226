from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.page.texts import STATIC, choose_language, table, text

LANGUAGES, TEXTS = table()["languages"], table()["texts"]


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
    sources = "".join(path.read_text() for path in (*STATIC.glob("*.js"), STATIC.parent / "pages.py"))
    assert [key for key in TEXTS if not re.search(rf'["\']{key}["\']', sources)] == []
    literal = re.findall(r'(?:text|named|hidden)\(["\'](\w+)["\']', sources)
    assert [key for key in literal if key not in TEXTS] == []


def test_a_text_comes_in_the_language_that_is_asked_for() -> None:
    assert (text("send", "en"), text("send", "zh")) == ("Send", "发送")


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
