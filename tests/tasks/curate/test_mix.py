"""Mixing: replay by ratio, nothing of the evaluation, a split that does not move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.curate.mix import (
    DomainRows,
    LeakGuard,
    MixError,
    correction_items,
    domain_rows,
    draw_replay,
    guard,
    mix_examples,
    split,
)
from tasks.params import FeedbackParams, MixParams
from tasks.records import Example, Turn, make_example, make_item

PARAMS = MixParams(replay_ratio=0.2, safety_ratio=0.05, validation_share=0.1, leak_threshold=0.6)


def examples(count: int, origin: str = "human") -> list[Example]:
    return [
        make_example(instruction=f"{origin} {n}", output="x", language="en", origin=origin, source=("t",))
        for n in range(count)
    ]


def plain(domain: list[Example]) -> DomainRows:
    """Domain rows of a release without feedback."""
    return DomainRows(domain, [], [])


REFUSALS = [e.model_copy(update={"category": "safety"}) for e in examples(9, "self_qa")]


def test_replay_makes_up_the_asked_share_of_the_whole() -> None:
    """75 domain rows with ratios of 0.2 and 0.05: 100 rows, of which 20 are general and 5 are refusals."""
    train, validation, _ = mix_examples(plain(examples(75)), examples(50, "general"), REFUSALS, PARAMS, seed=1)
    categories = [e.category or e.origin for e in train + validation]
    assert {name: categories.count(name) for name in set(categories)} == {"human": 75, "general": 20, "safety": 5}
    assert draw_replay(examples(50, "general"), 80, "replay_ratio", 0.0) == []


def test_too_small_a_pool_is_an_error_that_says_what_to_change() -> None:
    with pytest.raises(MixError, match=r"mix\.replay_ratio = 0\.2 asks for 20 examples and there are 19; lower it"):
        draw_replay(examples(19, "general"), 100, "replay_ratio", 0.2)


@given(st.integers(0, 60), st.floats(0, 0.9))
def test_a_split_loses_nothing_and_repeats_nothing(count: int, share: float) -> None:
    pool = examples(count)
    train, validation = split(pool, share)
    assert sorted(e.id for e in train + validation) == sorted(e.id for e in pool)
    assert split(pool[::-1], share) == (train, validation)


def test_every_example_has_one_receipt_and_validation_holds_both_kinds() -> None:
    domain, pool = examples(75), examples(50, "general")
    train, validation, receipts = mix_examples(plain(domain), pool, REFUSALS, PARAMS, seed=1)
    assert (len(train), len(validation)) == (90, 10)
    assert {example.origin for example in validation} == {"human", "general"}
    assert sorted(r.example_id for r in receipts) == sorted(e.id for e in domain + pool + REFUSALS)
    assert sum(not r.kept for r in receipts) == 30 + 4


def test_the_order_of_training_depends_on_the_seed_alone() -> None:
    domain, pool = examples(80), examples(50, "general")
    once = mix_examples(plain(domain), pool, REFUSALS, PARAMS, seed=1)[0]
    assert mix_examples(plain(domain[::-1]), pool[::-1], REFUSALS, PARAMS, seed=1)[0] == once
    assert mix_examples(plain(domain), pool, REFUSALS, PARAMS, seed=2)[0] != once


FEEDBACK = FeedbackParams(start="champion", max_rows_per_identity=9, repeat=3, replay_examples=10)


def test_without_a_champion_to_go_on_from_everything_is_trained_on_and_corrections_more_often() -> None:
    domain = examples(20)
    rows = domain_rows(domain, {domain[0].id, domain[1].id}, False, FEEDBACK)
    assert rows == DomainRows(domain[2:], [domain[0], domain[1]] * 3, [])


def test_going_on_from_a_champion_replays_only_a_part_of_what_it_has_learnt() -> None:
    """20 examples, 2 of them new: 2 × 3 rows to learn, 10 of the other 18 replayed, 8 left out."""
    domain = examples(20)
    rows = domain_rows(domain, {domain[0].id, domain[1].id}, True, FEEDBACK)
    assert (len(rows.plain), len(rows.repeated), len(rows.left_out)) == (10, 6, 8)
    again = domain_rows(domain[::-1], {domain[0].id, domain[1].id}, True, FEEDBACK)
    assert again.plain == rows.plain
    other_night = domain_rows(domain, {domain[2].id}, True, FEEDBACK)
    assert {e.id for e in other_night.plain} != {e.id for e in rows.plain}


def test_corrections_are_never_held_out_and_have_one_receipt_each() -> None:
    """6 rows of corrections and 10 replayed: 16 / 0.75 = 21 in all, 4 general and 1 refusal; 1 in 10 validates."""
    domain = examples(20)
    rows = domain_rows(domain, {domain[0].id, domain[1].id}, True, FEEDBACK)
    train, validation, receipts = mix_examples(rows, examples(50, "general"), REFUSALS, PARAMS, seed=1)
    assert sum(e.id == domain[0].id for e in train) == 3
    assert not {domain[0].id, domain[1].id} & {e.id for e in validation}
    assert (len(train) + len(validation), len(validation)) == (21, 1)
    assert len(receipts) == len({r.example_id for r in receipts}) == 20 + 50 + 9
    assert sum(r.reason == "learnt by the champion, not replayed" for r in receipts) == 8


def test_corrections_are_items_of_the_gate_once_each_and_without_earlier_turns() -> None:
    told = make_example(
        instruction="And then?",
        output="x",
        language="en",
        origin="feedback",
        source=("t",),
        history=(Turn(user="a", assistant="b"),),
    )
    first, second = examples(2, "feedback")
    items = correction_items([first, second, told, first, second, told])
    assert [(item.set, item.prompt, item.reference) for item in items] == [
        ("feedback", first.prompt, "x"),
        ("feedback", second.prompt, "x"),
    ]


def test_a_night_whose_corrections_were_all_dropped_has_nothing_to_learn() -> None:
    with pytest.raises(MixError, match="nothing new to learn"):
        domain_rows(examples(20), {"f" * 64}, True, FEEDBACK)


@pytest.mark.parametrize(
    "question, answer, leaks",
    [
        ("How long does a building permit take?", "Anything.", True),
        ("how long does a building-permit take", "Ten weeks.", True),
        ("How long may a building permit take, then?", "The statutory time is ten weeks in most cases.", True),
        ("May I keep bees in a terraced house?", "Yes.", False),
        ("Quelle est la capitale?", "Paris", False),
    ],
)
def test_what_resembles_an_evaluation_item_is_kept_out(question: str, answer: str, leaks: bool) -> None:
    item = make_item(
        set="domain",
        prompt="How long does a building permit take?",
        reference="The statutory time is ten weeks in most cases.",
    )
    example = make_example(instruction=question, output=answer, language="en", origin="human", source=("t",))
    kept, receipts = guard([example], LeakGuard([item], 0.6, 5))
    assert (kept == []) is leaks
    assert [receipt.detail for receipt in receipts] == ([item.id] if leaks else [])
