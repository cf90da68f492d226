"""What the online methods hold beside the policy, by hand, and what validation costs."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.core.training_params import FullParams, Method
from tasks.train.sizing.companions import companions_of
from tasks.train.sizing.demand import (
    NOTES,
    Batch,
    Companions,
    Partition,
    Training,
    checkpoint_bytes,
    forward_operations,
    memory_of,
)
from tests.small_model import LORA, SMALL

PPO = Companions(whole=1, copies=2, lent=2, saved=1, answers=8)


def training(method: Method, beside: Companions, stage: int = 2) -> Training:
    section = FullParams(train_embeddings=True) if method == "full" else LORA
    return Training(SMALL, method, section, "fp32", Partition(stage, 2), on_cpu=True, beside=beside)


def test_each_method_holds_what_its_trainer_holds(online: Any) -> None:
    """Reward model, reference, last good policy; the others one that is judged, and TRL's model or adapter."""
    assert companions_of(online("ppo")) == PPO
    groups = {"rollout": {"answers": 2}}
    assert companions_of(online("rloo", groups)) == Companions(whole=1, copies=4, lent=2, saved=2, answers=16)
    assert companions_of(online("grpo", {**groups, "grpo": {"beta": 0.0}})).copies == 3
    full = companions_of(online("grpo", groups, method="full"))
    assert full == Companions(whole=1, shared=1, copies=3, lent=2, saved=1, answers=16)
    assert companions_of(online("dpo")) == Companions()


def test_a_reward_model_and_copies_are_whole_in_every_process() -> None:
    """856 × 4 bytes each: one model and two copies, whatever ZeRO shares; a second model it does share."""
    assert memory_of(training("full", PPO), Batch(1, 4, 2)).companions == 3 * 3424
    assert memory_of(training("full", PPO, stage=3), Batch(1, 4, 2)).companions == 3 * 3424
    both = Companions(whole=1, shared=1)
    assert memory_of(training("full", both, stage=3), Batch(1, 4, 2)).companions == 3424 + 1712


def test_answering_counts_where_it_takes_more_than_learning() -> None:
    """8 answers of 4 tokens, keys and values of 4 numbers: 8 × 4 × 32 bytes, and two copies: 7872.

    Learning keeps 2176 bytes and 1280 of logits, which answering does not have.
    """
    memory = memory_of(training("full", PPO), Batch(1, 4, 2))
    assert (memory.activations, memory.logits) == (7872 - 1280, 1280)
    assert memory_of(training("full", Companions()), Batch(1, 4, 2)).activations == 2176


def test_a_checkpoint_s_size_by_hand() -> None:
    """fp32: weights twice, the tied head of 32 × 8, 12 bytes of optimiser for each that is trained, and notes."""
    assert checkpoint_bytes(training("lora", Companions())) == 2 * 320 + 1024 + 80 * 12 + NOTES
    assert checkpoint_bytes(training("full", Companions())) == 2 * 3424 + 1024 + 856 * 12 + NOTES


def test_checkpoints_hold_the_last_good_policy_too() -> None:
    one = checkpoint_bytes(training("full", PPO)) - checkpoint_bytes(training("full", Companions()))
    assert one == 3424


@pytest.mark.parametrize(("method", "added"), [("full", 0), ("lora", 2 * 80 * 4)])
def test_operations_of_a_forward_pass_by_hand(method: Method, added: int) -> None:
    """576 linear weights × 2 × 4 tokens = 4608; head 256 × 2 × 2 = 1024; attention 4 × 8 × 16 = 512; 80 of LoRA."""
    assert forward_operations(training(method, Companions()), Batch(1, 4, 2)) == 4608 + 1024 + 512 + added
