"""Mixing: replay by ratio, nothing of the evaluation, a split that does not move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.curate.mix import LeakGuard, MixError, draw_replay, guard, mix_examples, split
from tasks.params import MixParams
from tasks.records import Example, make_example, make_item

PARAMS = MixParams(replay_ratio=0.2, safety_ratio=0.05, validation_share=0.1, leak_threshold=0.6)


def examples(count: int, origin: str = "human") -> list[Example]:
    return [
        make_example(instruction=f"{origin} {n}", output="x", language="en", origin=origin, source=("t",))
        for n in range(count)
    ]


REFUSALS = [e.model_copy(update={"category": "safety"}) for e in examples(9, "self_qa")]


def test_replay_makes_up_the_asked_share_of_the_whole() -> None:
    """75 domain rows with ratios of 0.2 and 0.05: 100 rows, of which 20 are general and 5 are refusals."""
    train, validation, _ = mix_examples(examples(75), examples(50, "general"), REFUSALS, PARAMS, seed=1)
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
    train, validation, receipts = mix_examples(domain, pool, REFUSALS, PARAMS, seed=1)
    assert (len(train), len(validation)) == (90, 10)
    assert {example.origin for example in validation} == {"human", "general"}
    assert sorted(r.example_id for r in receipts) == sorted(e.id for e in domain + pool + REFUSALS)
    assert sum(not r.kept for r in receipts) == 30 + 4


def test_the_order_of_training_depends_on_the_seed_alone() -> None:
    domain, pool = examples(80), examples(50, "general")
    once = mix_examples(domain, pool, REFUSALS, PARAMS, seed=1)[0]
    assert mix_examples(domain[::-1], pool[::-1], REFUSALS, PARAMS, seed=1)[0] == once
    assert mix_examples(domain, pool, REFUSALS, PARAMS, seed=2)[0] != once


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
