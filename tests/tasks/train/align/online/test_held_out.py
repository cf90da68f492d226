"""What an online training gained: its interval, and prompts that processes share unevenly."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.train.align.online.judging import ANSWERS, _judged, paired_interval
from tasks.train.align.online.policy import Answers, Reading


def test_the_interval_is_students() -> None:
    """Differences 1, 2 and 3: mean 2, deviation 1, and t of two degrees of freedom is 4.3027."""
    half = 4.3027 / 3**0.5
    assert paired_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-4)


class Process:
    """A trainer of one of two processes, which scores an answer by its prompt and by its own number."""

    def __init__(self, rank: int) -> None:
        self.args = SimpleNamespace(process_index=rank, world_size=2)
        self.plan, self.job = SimpleNamespace(answers=2), SimpleNamespace(seed=1)
        self.rank, self.generated = rank, 0

    def sample(self, prompts: Sequence[list[int]], seed: int) -> Answers:
        self.generated += 1
        tokens = torch.tensor(prompts)
        return Answers(tokens, torch.ones_like(tokens), torch.ones_like(tokens))

    def judge(self, answers: Answers) -> tuple[Any, Any, Reading]:
        of_prompt = answers.tokens.float()
        return of_prompt[:, 0] + 100 * self.rank, of_prompt / 10, Reading(of_prompt, of_prompt, of_prompt / 2)


def test_an_uneven_share_is_padded_and_the_padding_counts_nowhere() -> None:
    """Three prompts of two processes: the second answers one of the first's as well, or it would leave that one alone.

    Of prompt 2: score 2, drift 0.2, entropy 1 a token, and four answers of one token.
    """
    processes = [Process(0), Process(1)]
    parts = [_judged(process, [[0], [1], [2]]) for process in processes]
    assert [process.generated for process in processes] == [ANSWERS, ANSWERS]
    assert [sorted(part) for part in parts] == [[0, 2], [1]]
    assert parts[0][2] == pytest.approx([2.0, 0.2, 4.0, 4.0])
    assert parts[1][1][0] == 101.0
