"""Answers of a small policy, how they are read, and what an online training gained."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.core.records import Example, make_example
from tasks.train.align.online.judging import ANSWERS, _judged, paired_interval
from tasks.train.align.online.policy import (
    Answers,
    PolicyReading,
    add_value_head,
    answer,
    prompt_rows,
    prompts_of_update,
    read,
)
from tasks.train.run.held_weights import held, lent
from tests import online_toy as toy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(toy.save_model(tmp_path_factory.mktemp("policy"))).eval()
    add_value_head(model)
    return model


def sampled(policy: Any, seed: int) -> Answers:
    return answer(policy, toy.tokenizer(), [[2], [3, 4], [5]], longest=12, temperature=1.0, seed=seed)


def test_an_answer_ends_with_its_first_end_of_turn(policy: Any) -> None:
    for seed in range(5):
        seen = sampled(policy, seed)
        for tokens, mask in zip(seen.tokens[:, 2:], seen.answer_mask, strict=True):
            length = int(mask.sum())
            assert mask.tolist() == [1] * length + [0] * (len(mask) - length)
            assert toy.END not in tokens[: length - 1]
            assert length == 12 or int(tokens[length - 1]) == toy.END
            assert set(tokens[length:].tolist()) <= {toy.PAD}


def test_the_seed_alone_says_what_is_drawn(policy: Any) -> None:
    torch.manual_seed(1)
    first = sampled(policy, 7)
    outside = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == outside  # the random numbers of others are left as they were
    assert torch.equal(sampled(policy, 7).tokens, first.tokens)
    assert not torch.equal(sampled(policy, 8).tokens, first.tokens)


def test_a_reading_is_of_what_was_drawn_from_and_the_same_alone_and_padded_among_others(policy: Any) -> None:
    answers = sampled(policy, 3)
    with torch.no_grad():
        first = answers.pick([0])
        logits = policy(first.tokens).logits[0, :-1] / 0.5
        drawn = logits.log_softmax(-1).gather(1, first.tokens[0, 1:, None])[:, 0]
        torch.testing.assert_close(read(policy, policy.value_head, first, 0.5).logps[0], drawn, atol=1e-5, rtol=0)
        together = read(policy, policy.value_head, answers, 0.7)
        for row in range(3):
            alone = read(policy, policy.value_head, answers.pick([row]), 0.7)
            length = int(answers.answer_mask[row].sum())
            assert alone.logps.shape[1] == length
            torch.testing.assert_close(together.logps[row, :length], alone.logps[0], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.entropy[row, :length], alone.entropy[0], atol=1e-5, rtol=0)


def test_a_lent_policy_gives_itself_back(policy: Any) -> None:
    own = held(policy)
    other = {name: torch.zeros_like(tensor) for name, tensor in own.items()}
    assert not any("value_head" in name for name in own)
    with lent(policy, other):
        assert float(policy.lm_head.weight.abs().sum()) == 0.0
    assert all(torch.equal(tensor, held(policy)[name]) for name, tensor in own.items())


def test_every_prompt_comes_once_before_any_comes_again() -> None:
    seen = [number for update in range(6) for number in prompts_of_update(9, 3, update, seed=1)]
    assert sorted(seen[:9]) == sorted(seen[9:]) == list(range(9))
    assert seen[:9] != seen[9:]


def example(text: str, origin: Any = "human") -> Example:
    return make_example(instruction=text, output="w1", language="en", origin=origin, source=("test",))


def test_replay_doubles_and_long_prompts_are_left_out() -> None:
    rows = [example("w0"), example("w1", "general"), example("w0"), example("w2 w3 w4")]
    assert prompt_rows(toy.tokenizer(), "", rows, max_tokens=2) == ([[2]], 1)


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

    def judge(self, answers: Answers) -> tuple[Any, Any, PolicyReading]:
        of_prompt = answers.tokens.float()
        return of_prompt[:, 0] + 100 * self.rank, of_prompt / 10, PolicyReading(of_prompt, of_prompt, of_prompt / 2)


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
