"""Masking of personal data, in English, Swedish and Chinese; numbers that check are the published examples."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.text.personal import chinese_identity, iban, luhn, masked, swedish_identity


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Write to anna.berg@example.se, please.", "Write to <EMAIL>, please."),
        ("邮箱wang@example.com，谢谢", "邮箱<EMAIL>，谢谢"),
        ("卡4111111111111111。", "卡<CARD>。"),
        ("Card 4111 1111 1111 1111 ok", "Card <CARD> ok"),
        ("电话13812345678吧", "电话<CHINESE_MOBILE>吧"),
        ("身份证11010519491231002X。", "身份证<CHINESE_ID>。"),
        ("personnummer 811218-9876", "personnummer <PERSONAL_NUMBER>"),
        ("IBAN SE45 5000 0000 0583 9825 7466 now", "IBAN <IBAN> now"),
        ("ring +46 70 123 45 67 idag", "ring <PHONE> idag"),
        ("ring 070-123 45 67", "ring <SWEDISH_PHONE>"),
        ("服务器192.168.1.20的", "服务器<IP>的"),
        ("a@b.se och 070-123 45 67", "<EMAIL> och <SWEDISH_PHONE>"),
    ],
)
def test_personal_data_is_replaced_by_its_kind_and_kinds_are_told_in_order(text: str, expected: str) -> None:
    assert masked(text) == (expected, re.findall(r"<(\w+)>", expected))


@pytest.mark.parametrize(
    "text",
    [
        "SFS 2010:900, 10 kap. 5-9 §§, and section 9.2.1.3 of the building code",
        "Order 12345678901234 of 2024-11-22 costs 1 250 000 SEK",
        "第一百一十九条第2款，2023年10月24日",
        "4111111111111112",
        "",
    ],
)
def test_figures_and_references_of_a_regulation_stay(text: str) -> None:
    assert masked(text) == (text, [])


def test_check_digits_are_those_of_the_standards() -> None:
    """4111… is the card schemes' test number; 811218-9876 is Skatteverket's; the IBAN is the Swedish registry's."""
    assert luhn("4111111111111111") and not luhn("4111111111111112")
    assert swedish_identity("811218-9876") and not swedish_identity("811218-9875")
    assert not swedish_identity("811318-9876")
    assert iban("SE4550000000058398257466") and not iban("SE4650000000058398257466")
    assert chinese_identity("11010519491231002X") and not chinese_identity("110105194912310021")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_masking_what_is_masked_changes_nothing_more(text: str) -> None:
    once, _ = masked(text)
    assert masked(once) == (once, [])
