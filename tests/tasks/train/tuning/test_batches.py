"""Batches: what is learnt, and in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.records import make_example
from tasks.train.tuning.batches import BatchError, PlannedBatches, _deal, count_steps, encode_rows, plan_epoch


class LetterTokenizer:
    """One token a character; a prompt is the user's text and `>`."""

    chat_template = "{{ messages[-1]['content'] }}>"
    special_tokens_map: dict[str, str] = {}  # noqa: RUF012 - never changed
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    all_special_tokens: tuple[str, ...] = ()
    eos_token_id = 0

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


def test_only_the_answer_and_its_end_are_learnt() -> None:
    """`ab>` is the prompt: three labels of -100; `cd` is 99, 100, then the end of turn, 0."""
    example = make_example(instruction="ab", output="cd", language="en", origin="human", source=("t",))
    [row] = encode_rows(LetterTokenizer(), "", [example], 10)
    assert row["input_ids"] == [97, 98, 62, 99, 100, 0]
    assert row["labels"] == [-100, -100, -100, 99, 100, 0]


@pytest.mark.parametrize(
    "examples, batch_size, processes, steps",
    [
        (748, 4, 2, 94),  # 93.5 steps of 8
        (8, 4, 2, 1),
        (9, 4, 2, 2),  # 5 and 4, not 8 and 1
        (3, 1, 2, 1),  # two steps would leave a process with nothing
        (2, 8, 2, 1),
    ],
)
def test_an_epoch_has_as_few_steps_as_the_batch_size_allows(
    examples: int, batch_size: int, processes: int, steps: int
) -> None:
    assert count_steps(examples, batch_size, processes) == steps


def test_fewer_examples_than_processes_are_refused() -> None:
    with pytest.raises(BatchError, match="1 training examples cannot be shared among 2"):
        count_steps(1, 4, 2)


def test_longer_and_shorter_examples_are_dealt_forth_and_back() -> None:
    """0 to the first, 1 and 2 to the second, 3 and 4 to the first."""
    assert _deal([10, 11, 12, 13, 14], 2) == [[10, 13, 14], [11, 12]]


@given(
    lengths=st.lists(st.integers(1, 500), min_size=3, max_size=120),
    batch_size=st.integers(2, 9),
    processes=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_every_example_comes_once_and_no_process_idles(
    lengths: list[int], batch_size: int, processes: int, seed: int
) -> None:
    plan = plan_epoch(lengths, batch_size, processes, seed, epoch=1)
    assert len(plan) == count_steps(len(lengths), batch_size, processes)
    assert sorted(index for step in plan for hand in step for index in hand) == list(range(len(lengths)))
    assert all(1 <= len(hand) <= batch_size for step in plan for hand in step)


def test_similar_lengths_share_a_step() -> None:
    """Two steps of four in one pool: the four long ones fill one step, the four short ones the other."""
    plan = plan_epoch([9, 1, 9, 1, 9, 1, 9, 1], batch_size=2, processes=2, seed=0, epoch=0)
    steps = sorted(sorted(index for hand in step for index in hand) for step in plan)
    assert steps == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    lengths = list(range(1, 41))
    first = plan_epoch(lengths, 4, 2, seed=1, epoch=0)
    assert first == plan_epoch(lengths, 4, 2, seed=1, epoch=0)
    assert first != plan_epoch(lengths, 4, 2, seed=2, epoch=0)
    assert first != plan_epoch(lengths, 4, 2, seed=1, epoch=1)


def test_the_processes_together_see_the_whole_plan() -> None:
    lengths = list(range(1, 12))
    parts = [PlannedBatches(lengths, 2, 2, process, seed=3) for process in (0, 1)]
    for part in parts:
        part.epoch = 4
    assert [list(step) for step in zip(*parts, strict=True)] == plan_epoch(lengths, 2, 2, seed=3, epoch=4)
    assert len(parts[0]) == len(parts[1]) == 3
