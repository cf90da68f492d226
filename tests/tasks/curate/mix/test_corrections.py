"""What a night is asked about corrections: in other words, once each, and what lies beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tasks.core.records import Example, Turn, make_example, make_item
from tasks.curate.mix.corrections import EARLIER, NEIGHBOUR, correction_items, kept_items, nearest
from tasks.similarity.embedder import Embeddings


def correction(instruction: str, **fields: Any) -> Example:
    return make_example(
        instruction=instruction, output="Ten weeks.", origin="feedback", language="en", source=("t",), **fields
    )


def test_corrections_are_items_of_the_gate_once_each_under_what_they_were_said() -> None:
    turns = (Turn(user="a", assistant="b"),)
    told, under = correction("One?", history=turns), correction("One?", system="Be brief.")
    first, second = correction("One?"), correction("Two?")
    items = correction_items([first, second, told, under, first, second, told], {}, [])
    assert [(item.set, item.prompt, item.system, item.history) for item in items] == [
        ("feedback", "One?", "", ()),
        ("feedback", "Two?", "", ()),
        ("feedback", "One?", "", turns),
        ("feedback", "One?", "Be brief.", ()),
    ]
    assert items[0] == make_item(**items[0].model_dump(include={"set", "prompt", "reference", "category", "source"}))


def test_a_correction_is_asked_in_the_words_that_nobody_trains_on() -> None:
    """The second's other wording is, signs and case aside, what another row asks; the third has none."""
    rows = [correction("多久？"), correction("How long?"), correction("Where?")]
    wordings = {rows[0].id: "要等几天", rows[1].id: "how LONG does it take"}
    asked = correction_items(rows, wordings, [*rows, correction("How long does it take?")])
    assert [(one.prompt, one.paraphrases) for one in asked] == [
        ("要等几天", ("多久？",)),
        ("How long?", ()),
        ("Where?", ()),
    ]
    assert {one.reference for one in asked} == {"Ten weeks."}


def test_beside_a_correction_lie_the_nearest_questions_that_ask_something_else() -> None:
    """At 10, 30, 60 and 90 degrees to the correction; a cosine of 0.95, 18 degrees, asks the same."""
    angles = {"new": 0, "same": 10, "near": 30, "far": 60, "away": 90}
    rows = np.array([[np.cos(np.radians(a)), np.sin(np.radians(a))] for a in angles.values()], np.float32)
    embeddings = Embeddings(list(angles), rows, rows)
    assert nearest(embeddings, ["new"], ["away", "far", "same", "near"], 0.95) == ["near", "far", "away"]
    assert nearest(embeddings, [], ["far"], 0.95) == nearest(embeddings, ["new"], [], 0.95) == []


def test_what_is_kept_says_whether_it_was_learnt_before_or_lies_beside() -> None:
    earlier, beside = correction("One?"), correction("Two?")
    found = [(one.set, one.prompt, one.category) for one in kept_items([earlier], [beside])]
    assert found == [("kept", "One?", EARLIER), ("kept", "Two?", NEIGHBOUR)]
