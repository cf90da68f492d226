"""Whether an online training was worth it: rewards on prompts that it never saw, before and after.

The SFT policy and the trained one answer the same prompts with the same random numbers.
Needs torch and transformers: import it in a worker process only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from tasks.train.align.online.rollouts import seed_of
from tasks.train.run.held_weights import lent
from tasks.train.run.worker import shares

ANSWERS = 4  # to each prompt, so that the luck of one weighs less


def compare_held_out(trainer: Any, prompts: Sequence[list[int]]) -> dict[str, Any]:
    """Mean rewards of the SFT policy and of the trained one, and where the latter stands.

    Args:
        trainer: one with Judging, after `train`.
        prompts: token ids; at least two, or nothing is compared.

    Returns:
        Their names begin with held_out: `_prompts`; `_reward_sft` and `_reward`; `_gain` with `_gain_low` and
        `_gain_high`, a paired interval of 95% by Student's t over prompts, in units of the reward model; `_kl` (nats an
        answer) and `_entropy` (nats a token) of the trained policy. What is not finite is left out.
    """
    if len(prompts) < 2:
        return {"held_out_prompts": len(prompts)}
    with lent(trainer.policy, trainer.reference):
        before = _judged(trainer, prompts)
    after = _judged(trainer, prompts)
    pairs = [(before[number][0], after[number][0]) for number in sorted(after)]
    low, high = paired_interval([new - old for old, new in pairs])
    figures = {
        "prompts": len(pairs),
        "reward_sft": sum(old for old, _ in pairs) / len(pairs),
        "reward": sum(new for _, new in pairs) / len(pairs),
        "gain": sum(new - old for old, new in pairs) / len(pairs),
        "gain_low": low,
        "gain_high": high,
        "kl": sum(row[1] for row in after.values()) / len(pairs),
        "entropy": sum(row[2] for row in after.values()) / sum(row[3] for row in after.values()),
    }
    return {f"held_out_{name}": value for name, value in figures.items() if math.isfinite(value)}


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of the mean of at least two differences, by Student's t."""
    from scipy.stats import ttest_1samp

    interval = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


@torch.no_grad()
def _judged(trainer: Any, prompts: Sequence[list[int]]) -> dict[int, list[float]]:
    """By prompt: mean score, mean drift of an answer, summed entropy and number of tokens of its answers."""
    from accelerate.utils import gather_object

    rank, world = trainer.args.process_index, trainer.args.world_size
    size = trainer.plan.answers
    mine = shares(len(prompts), rank, world)
    asked = [number for number in mine for _ in range(ANSWERS)]
    rows: list[list[float]] = []
    for first in range(0, len(asked), size):
        batch = [prompts[number] for number in asked[first : first + size]]
        answers = trainer.sample(batch, seed_of(trainer.job.seed, "held out", first, rank))
        scores, drift, reading = trainer.judge(answers)
        mask = answers.answer_mask
        columns = (scores, drift.sum(1), (reading.entropy * mask).sum(1), mask.sum(1).float())
        rows += torch.stack(columns, dim=1).tolist()
    by_prompt = []
    for place, number in enumerate(mine):
        if number != rank + place * world:  # another process's, which counts there
            continue
        given = rows[place * ANSWERS : (place + 1) * ANSWERS]
        score, kl, entropy, tokens = (sum(column) for column in zip(*given, strict=True))
        by_prompt.append((number, [score / ANSWERS, kl / ANSWERS, entropy, tokens]))
    return dict(gather_object(by_prompt))
