"""Answers built from triples have to say what the question did not."""

from __future__ import annotations

import pytest

from tasks.curate.quality.triple_answers import states_a_triple

ISSUED = "Road Traffic Safety Law | issued by | Standing Committee"
QUESTION = "Who issued the Road Traffic Safety Law?"


@pytest.mark.parametrize(
    ("answer", "evidence", "question", "states"),
    [
        ("It was issued by the Standing Committee.", ISSUED, QUESTION, True),
        ("It is the STANDING committee", ISSUED, QUESTION, True),
        ("The Road Traffic Safety Law was issued.", ISSUED, QUESTION, False),
        ("The State Council.", ISSUED, QUESTION, False),
        ("Yes, the Standing Committee did.", ISSUED, f"Did the Standing Committee issue it? {QUESTION}", True),
        ("全国人大常委会制定了该法。", "道路交通安全法 | 制定机关 | 全国人大常委会", "道路交通安全法由谁制定？", True),
        ("Anything.", "a passage, not a triple", "Why?", False),
        ("Anything.", "", "Why?", False),
    ],
)
def test_an_answer_names_what_its_triples_say(answer: str, evidence: str, question: str, states: bool) -> None:
    assert states_a_triple(answer, evidence, question) is states
