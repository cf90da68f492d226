"""Answers that the policy gives while it trains, and what is known of each of their tokens.

Prompts are padded on the left and answers on the right, so that every answer begins in the same column.
Randomness is seeded for each update and process, so that a run that goes on from a checkpoint draws the same answers.
Needs torch and transformers: import it in a worker process only.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from tasks.core.records import Example
from tasks.text.prompts import encode_text, render_prompt

REPLAYED = "general"  # the origin of examples against forgetting; the reward model knows nothing of them


@dataclass(frozen=True)
class Answers:
    """A batch of answers.

    tokens, mask: (answers, prompt columns + answer columns); the mask is 1 on the prompt's and the answer's tokens.
    answer_mask: (answers, answer columns), 1 up to and with the end-of-turn token.
    """

    tokens: Tensor
    mask: Tensor
    answer_mask: Tensor

    def pick(self, rows: Sequence[int]) -> Answers:
        """Some of the answers, without the columns that none of them uses."""
        index = list(rows)
        mask, answer_mask = self.mask[index], self.answer_mask[index]
        prompt_columns = mask.shape[1] - answer_mask.shape[1]
        left = int(mask[:, :prompt_columns].any(dim=0).long().argmax()) if prompt_columns else 0
        right = mask.shape[1] - int((~answer_mask.bool().any(dim=0)).sum())
        return Answers(self.tokens[index, left:right], mask[:, left:right], answer_mask[:, : right - prompt_columns])


@dataclass(frozen=True)
class Judged:
    """What is known of each answer token, all (answers, answer columns): see ppo_trainer.py."""

    logps: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def pick(self, rows: Sequence[int], columns: int) -> Judged:
        """That of some answers, cut to their first columns."""
        return Judged(*(getattr(self, field.name)[list(rows), :columns] for field in fields(self)))


def prompt_rows(
    tokenizer: Any, system: str, examples: Sequence[Example], max_tokens: int
) -> tuple[list[list[int]], int]:
    """Token ids of the domain's prompts, each once, and the number of those left out because they are longer."""
    rendered = {
        render_prompt(tokenizer, example.system or system, example.prompt, example.history): None
        for example in examples
        if example.origin != REPLAYED
    }
    rows = [encode_text(tokenizer, text) for text in rendered]
    fitting = [row for row in rows if len(row) <= max_tokens]
    return fitting, len(rows) - len(fitting)


def prompts_of_update(total: int, count: int, update: int, seed: int) -> list[int]:
    """Numbers of the prompts of one update: every prompt once in an epoch, in an order of its own each time."""
    chosen = []
    for position in range(update * count, (update + 1) * count):
        epoch, place = divmod(position, total)
        order = list(range(total))
        random.Random(f"{seed} prompts {epoch}").shuffle(order)
        chosen.append(order[place])
    return chosen


def seed_of(*parts: object) -> int:
    """A seed for torch that depends on all parts."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


@torch.no_grad()
def answer(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], longest: int, temperature: float, seed: int
) -> Answers:
    """One sampled answer to each prompt.

    Args:
        model: the policy, unwrapped, in evaluation mode.
        tokenizer: it names padding and the end of a turn.
        prompts: token ids.
        longest: tokens of an answer at most.
        temperature: of the sampling; every token of the vocabulary may come.
        seed: of the random numbers, which are those of before afterwards.
    """
    from transformers import GenerationConfig

    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    width = max(map(len, prompts))
    device = model.device
    tokens = torch.tensor([[pad] * (width - len(row)) + list(row) for row in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in prompts], device=device)
    config = GenerationConfig(
        do_sample=True,
        temperature=temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=longest,
        pad_token_id=pad,
        eos_token_id=end,
        use_cache=True,
        remove_invalid_values=True,  # a policy that has become no number is to be judged, not to end the process
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = model.generate(input_ids=tokens, attention_mask=mask, generation_config=config)
    given = given[:, width:]
    ended = (given == end).long()
    answer_mask = (ended.cumsum(dim=1) - ended == 0).long()
    given = given.masked_fill(answer_mask == 0, pad)
    return Answers(torch.cat([tokens, given], dim=1), torch.cat([mask, answer_mask], dim=1), answer_mask)
