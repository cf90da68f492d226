from __future__ import annotations

import re
import string

import pytest

from serving.page.texts import STATIC, choose_language, table, text

LANGUAGES, TEXTS = table()["languages"], table()["texts"]


def placeholders(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def test_no_text_lacks_a_language_or_a_value_and_no_chinese_text_was_left_in_english() -> None:
    for key, words in TEXTS.items():
        assert set(words) == set(LANGUAGES) and all(value.strip() for value in words.values()), key
        assert len({frozenset(placeholders(value)) for value in words.values()}) == 1, key
        assert re.search(r"[\u4e00-\u9fff]", words["zh"]), key


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
        ("*", "en"),
        (",;=\x00," * 99, "en"),
    ],
)
def test_the_browser_chooses_the_language(header: str, language: str) -> None:
    assert choose_language(header) == language
