"""What counts as the same model, with an engine that says what the test wants."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.engine.client import Engine, EngineError
from tasks.engine.parity import ParityProbe, agreement_of, check

PROBE = ParityProbe(messages=[], prompt="p", prompt_ids=[1, 2], reference="r", nll=1.0, answer="A door is 80 cm wide.")


class Told(Engine):
    """An engine with fixed replies."""

    def __init__(self, ids: list[int] | None, nll: float | None, answer: str = "") -> None:
        self.told: tuple[Any, ...] = (ids, nll, answer)

    def prompt_ids(self, model: str, messages: list[dict[str, str]]) -> list[int] | None:
        return self.told[0]

    def answer_nll(self, model: str, prompt_text: str, answer_text: str) -> float | None:
        return self.told[1]

    def chat(self, model: str, messages: list[dict[str, str]], max_tokens: int, temperature: float = 0.0) -> str:
        return self.told[2]


def test_equal_tokens_and_a_near_loss_are_the_same_model() -> None:
    report = check(Told([1, 2], 1.04), "m", [PROBE], 0.05)
    assert report.ok and "1 prompts have equal tokens" in report.reason
    assert report.probes[0].agreement is None


@pytest.mark.parametrize(
    ("ids", "nll", "reason"),
    [([1, 2], 1.06, "loss"), ([1, 2], 0.94, "loss"), ([1, 2], float("nan"), "loss"), ([1, 3], 1.0, "2 of 2 prompts")],
)
def test_a_loss_out_of_tolerance_or_one_wrong_token_is_another_model(ids: list[int], nll: float, reason: str) -> None:
    report = check(Told(ids, nll), "m", [PROBE, PROBE], 0.05)
    assert not report.ok and reason in report.reason
    assert not check(Told([1, 2], 1.0), "m", [PROBE, PROBE.model_copy(update={"nll": 2.0})], 0.05).ok, "one is enough"
    with pytest.raises(EngineError, match="no probes"):
        check(Told([1, 2], 1.0), "m", [], 0.05)


def test_an_engine_that_tells_nothing_is_judged_by_its_answers_and_the_report_says_so() -> None:
    report = check(Told(None, None, PROBE.answer), "m", [PROBE], 0.05)
    assert report.ok and "tells no tokens or losses" in report.reason and "100%" in report.reason
    other = check(Told(None, None, "Ja, bygglov krävs."), "m", [PROBE], 0.05)
    assert not other.ok and "50% wanted" in other.reason


def test_agreement_goes_as_far_as_the_shorter_answer() -> None:
    assert agreement_of("80 cm", "80 cm, at least") == 1.0
    # Three of the four characters stand in the other, in order: 2·3 / (4 + 4).
    assert agreement_of("门宽八十", "门宽九十") == 0.75
    assert agreement_of("", "") == 1.0
    assert agreement_of("", "80 cm") == 0.0
