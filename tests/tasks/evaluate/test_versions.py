"""Two versions item by item: what the gate asks, categories, losses, marks, and what is refused. Counts are by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.core.benchmarks import Benchmark
from tasks.core.intervals import Interval
from tasks.core.params import load_params
from tasks.core.records import EvaluationItem
from tasks.evaluate.scoring.questions import GeneratedAnswer
from tasks.evaluate.versions import Comparison, Difference, Evaluation, compare_versions
from tasks.evaluate.versions_page import marked, notices, places, summary, worst

CONDITIONS = {"model": "m", "system": "s", "tokenizer": "t", "precision": "bf16", "sets": {}}


def key(number: int) -> str:
    return f"{number:064x}"


# Items 0 to 9 are of the domain, four on roofs and six on baths; 20 to 29 are dialogues.
ITEMS = [
    EvaluationItem(
        id=key(n),
        set="domain",
        prompt=f"Q{n}?",
        reference=f"R{n}",
        facts=(("x",),),
        category="roofs" if n < 4 else "baths",
    )
    for n in range(10)
] + [EvaluationItem(id=key(n), set="dialogue", prompt=f"Q{n}?", reference=f"R{n}") for n in range(20, 30)]


def evaluation(right: set[int], loss: float, **conditions: Any) -> Evaluation:
    """An evaluation with these right answers, and the same loss on each dialogue."""
    table = {
        ("facts", "right"): {key(n): float(n in right) for n in range(10)},
        ("dialogue", "nll"): {key(n): loss + n / 100 for n in range(20, 30)},
    }
    answers = {
        key(n): GeneratedAnswer(id=key(n), set="domain", prompt=f"Q{n}?", reference=f"R{n}", text=f"{n in right}")
        for n in range(10)
    }
    return Evaluation({**CONDITIONS, **conditions}, table, answers)


def compared(before: Evaluation, after: Evaluation, *sets: Benchmark) -> Comparison:
    params = load_params()
    return compare_versions(before, after, ITEMS, sets, params.gate, params.seed)


A = evaluation({0, 1, 2, 3, 4, 5, 6, 7}, 3.0)  # 8 right
B = evaluation({2, 3, 4, 5, 6, 7, 8}, 3.5)  # 7 right: 0 and 1 lost, 8 won


def test_right_answers_are_counted_by_category_the_most_lost_first() -> None:
    found = compared(A, B)
    rows = [(row.name, row.n, row.before, row.after, row.lost, row.won) for row in found.categories["facts right"]]
    assert rows == [("roofs", 4, 4, 2, (key(0), key(1)), ()), ("baths", 6, 4, 5, (), (key(8),))]
    assert summary(found) == ["Right answers: 8 of 10 in A, 7 in B (2 lost, 1 won)"]


def test_criteria_are_b_minus_a_and_say_better_or_worse_by_the_metrics_own_direction() -> None:
    """Dialogues lose 0.7 nats and up, 0.745 in the mean; more nats are worse."""
    steeper = {key(n): 3.5 + n / 50 for n in range(20, 30)}
    right, dialogue = compared(A, replace(B, table={**B.table, ("dialogue", "nll"): steeper})).criteria
    assert (right.metric, right.means, right.change.estimate, right.change.n) == ("right", (0.8, 0.7), -0.1, 10)
    assert right.change.low < -0.1 < 0 < right.change.high and right.reading == "no difference shown"
    assert right.allowed == "more than the 0.06 that may be lost is not ruled out"
    assert (dialogue.means, dialogue.change.estimate) == ((3.245, 3.99), 0.745)
    assert (
        dialogue.reading == "worse" and dialogue.allowed == "more than the 0.1 that may be lost, by the whole interval"
    )


def test_a_difference_is_drawn_with_the_better_side_to_the_right() -> None:
    """The widest value, a rise of 1 nat where less is better, is 48 percent left of the middle."""
    row = Difference("dialogue", "nll", "nats", False, (3.0, 3.5), Interval(0.5, 0.25, 1.0, 10), 0.1, "worse", "")
    assert places(row) == {"low": 38.0, "high": 2.0, "mid": 26.0, "margin": 45.2}
    assert places(replace(row, higher_is_better=True, margin=None))["mid"] == 74.0


def test_what_is_compared_the_other_way_round_has_the_same_interval_with_the_other_sign() -> None:
    for there, back in zip(compared(A, B).criteria, compared(B, A).criteria, strict=True):
        assert (there.change.low, there.change.high) == (-back.change.high, -back.change.low)


def test_losses_come_worst_first_and_the_items_that_lost_right_answers_before_all_others() -> None:
    slower = replace(B, table={**B.table, ("dialogue", "nll"): {key(n): 3.0 + n / 50 for n in range(20, 30)}})
    found = compared(A, slower)
    right, dialogue = found.columns
    assert (right.n, right.lost, right.won) == (10, (key(0), key(1)), (key(8),))
    assert dialogue.lost == tuple(key(n) for n in range(29, 19, -1)) and not dialogue.higher_is_better
    assert [pair.id for _, pair in worst(found, 3)] == [key(0), key(1), key(29)]
    assert found.items[key(0)].texts == ("True", "False") and found.items[key(0)].scores == {"facts right": (1.0, 0.0)}
    assert found.items[key(29)].question == "Q29?" and found.items[key(29)].texts == (None, None)


def test_other_conditions_are_named_and_leave_only_what_a_reader_sees_in_the_answers() -> None:
    found = compared(A, evaluation({2, 3}, 3.0, precision="fp32"))
    assert found.criteria == [] and found.differing == {"precision": ("bf16", "fp32")}
    assert found.refused == {"measured under different conditions (precision)": ["facts_right", "dialogue_nll"]}
    assert [(column.set, len(column.lost)) for column in found.columns] == [("facts", 6)]
    assert "precision: bf16 in A, fp32 in B" in notices(found)[0]


def test_another_model_and_prompt_are_what_is_compared_and_another_tokenizer_spares_what_is_said_in_texts() -> None:
    assert compared(A, evaluation({2}, 3.0, model="n", system="z")).refused == {}
    found = compared(A, evaluation({2}, 3.0, tokenizer="u"))
    assert [row.set for row in found.criteria] == ["facts"]
    assert found.refused == {"measured under different conditions (tokenizer)": ["dialogue_nll"]}


def test_other_items_are_refused_with_counts_but_corrections_are_compared_where_both_have_them() -> None:
    """Six corrections in A, seven in B, five of them in both."""
    other = evaluation(set(), 3.0)
    del other.table["facts", "right"][key(0)]
    before, after = (
        replace(side, table={**side.table, ("feedback", "said"): {key(n): value for n in range(*numbers)}})
        for side, value, numbers in ((A, 0.25, (40, 46)), (other, 0.75, (41, 48)))
    )
    found = compared(before, after)
    assert found.refused == {"asked of other items: 9 in common, 1 in A alone, 0 in B alone": ["facts_right"]}
    assert found.categories["facts right"][0].n == 6, "what both have is counted"
    learnt = found.criteria[-1]
    assert (learnt.set, learnt.means, learnt.change.n, learnt.margin) == ("feedback", (0.25, 0.75), 5, None)
    assert found.items[key(41)].question == "(not among the questions at hand)"
    del after.table["feedback", "said"][key(41)]
    assert compared(before, after).refused["4 items in common are too few; 5 are needed"] == ["feedback_said"]


def test_a_benchmark_is_compared_where_its_data_are_the_same() -> None:
    quotes = Benchmark(name="quotes", config="quotes.py", metric="errors", higher_is_better=False)
    before, after = (
        replace(side, table={("quotes", "errors"): {key(n): value + n for n in range(5)}}, conditions=CONDITIONS | at)
        for side, value, at in ((A, 1.0, {"sets": {"quotes": {"definition": "d"}}}), (B, 0.0, {}))
    )
    assert list(compared(before, after, quotes).refused) == [
        "measured under different conditions (quotes: its data or configuration)"
    ]
    found = compared(before, replace(after, conditions=before.conditions), quotes)
    assert found.criteria[0].change.estimate == -1.0 and len(found.columns[0].won) == 5


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("应当在三十日内申请。", "应当在六十日内申请。", ["三"], ["六"]),
        ("It costs 900 SEK per hour.", "It costs 2,500 SEK per hour.", ["900"], ["2,500"]),
        ("the same", "the same", [], []),
        ("gone", "", ["gone"], []),
        ("one of us came home", "two or us went home", ["one of us came"], ["two or us went"]),
    ],
)
def test_the_words_that_differ_are_marked_and_of_writing_without_spaces_the_characters(
    before: str, after: str, left: list[str], right: list[str]
) -> None:
    """A word or two in common between differences are chance. Nothing is lost of either text."""
    sides = marked(before, after)
    assert ["".join(text for text, _ in side) for side in sides] == [before, after]
    assert [[text for text, new in side if new] for side in sides] == [left, right]
