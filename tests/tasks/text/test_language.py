"""Languages are told apart offline, and short texts are not judged."""

from __future__ import annotations

import pytest

from tasks.text.language import LanguageUnknown, language_confidence

CHINESE = "机动车通过交叉路口时，应当按照交通信号灯、交通标志、交通标线或者交通警察的指挥通过，不得违反规定。"
ENGLISH = "A vehicle that passes a crossing follows the signals and the signs."


def test_chinese_is_recognised_and_told_from_english() -> None:
    chinese, english, short = language_confidence("zh")([CHINESE, ENGLISH, "Stop."])
    assert chinese > 0.5 and english < 1e-7
    assert short == 1.0, "too short to be judged"
    assert language_confidence("zh")([]) == []


def test_a_language_that_cannot_be_detected_is_refused() -> None:
    with pytest.raises(LanguageUnknown, match="'xx'"):
        language_confidence("xx")
