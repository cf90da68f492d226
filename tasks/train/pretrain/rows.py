"""From documents and general text to the rows that continued pretraining reads.

Texts are shuffled, laid end to end with the end-of-text token behind each, and cut into rows of one length, without
masking (Brown et al. 2020, arXiv 2005.14165, appendix B). General text is mixed in against forgetting, five to ten
times the domain's tokens (Que et al. 2024, arXiv 2406.01375), repeated at most four times (Muennighoff et al. 2023,
arXiv 2305.16264).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.records import Document, Example
from tasks.text.prompts import encode_answer, encode_text, render_prompt
from tasks.train.tuning.batches import HELD_OUT

MOST_REPEATS = 4

Ids = list[int]


class PretrainError(FlywheelError):
    """There is nothing, or not enough, to go on pretraining with."""


@dataclass(frozen=True)
class Rows:
    """Rows to learn from, and those held out of each kind."""

    train: list[Ids]
    domain: list[Ids]
    general: list[Ids]
    domain_tokens: int  # of the rows to learn from
    general_tokens: int


def document_ids(tokenizer: Any, document: Document) -> Ids:
    """A document's text and the end-of-text token; special tokens in the text stay plain characters."""
    ids: Ids = tokenizer(document.text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def example_ids(tokenizer: Any, example: Example) -> Ids:
    """A general example as the conversation it is, the end-of-turn token last."""
    prompt = render_prompt(tokenizer, example.system, example.prompt, example.history)
    return encode_text(tokenizer, prompt) + encode_answer(tokenizer, example.output)


def in_rows(texts: Sequence[Ids], max_tokens: int) -> list[Ids]:
    """Texts end to end, cut into rows; a last row of a single token, which has nothing to learn, is left out."""
    ids = [token for text in texts for token in text]
    rows = [ids[first : first + max_tokens] for first in range(0, len(ids), max_tokens)]
    return [row for row in rows if len(row) > 1]


def enough(texts: Sequence[Ids], tokens: float, seed: int) -> list[Ids]:
    """Texts in random order, each again only when all have come, until they hold so many tokens.

    Raises PretrainError: they would have to come more than MOST_REPEATS times.
    """
    held = sum(map(len, texts))
    if tokens > MOST_REPEATS * held:
        raise PretrainError(
            f"general text of {held} tokens cannot fill {tokens:.0f}, even {MOST_REPEATS} times over; "
            "lower pretrain.general_ratio, or give the domain more general sources"
        )
    rng, chosen, count = random.Random(f"{seed} general"), list[Ids](), 0
    while count < tokens:
        order = list(texts)
        rng.shuffle(order)
        for text in order:
            if count >= tokens:
                break
            chosen.append(text)
            count += len(text)
    return chosen


def held_out(rows: Sequence[Ids], seed: int) -> tuple[list[Ids], list[Ids]]:
    """Rows to learn from and rows to measure on: one of HELD_OUT, at least one where there are two."""
    count = -(-len(rows) // HELD_OUT) if len(rows) > 1 else 0
    chosen = set(random.Random(f"{seed} held out").sample(range(len(rows)), count))
    parts: tuple[list[Ids], list[Ids]] = ([], [])
    for index, row in enumerate(rows):
        parts[index in chosen].append(row)
    return parts


def build_rows(domain: Sequence[Ids], general: Sequence[Ids], max_tokens: int, ratio: float, seed: int) -> Rows:
    """The rows, `ratio` general tokens for each of the domain's. Raises PretrainError: too little general text."""
    texts = list(domain)
    random.Random(f"{seed} domain").shuffle(texts)
    learnt, measured = held_out(in_rows(texts, max_tokens), seed)
    domain_tokens = sum(map(len, learnt))
    keep = len(general) - -(-len(general) // HELD_OUT)
    order = list(general)
    random.Random(f"{seed} split").shuffle(order)
    filler = in_rows(enough(order[:keep], ratio * domain_tokens, seed), max_tokens) if ratio else []
    return Rows(
        train=learnt + filler,
        domain=measured,
        general=in_rows(order[keep:], max_tokens) if ratio else [],
        domain_tokens=domain_tokens,
        general_tokens=sum(map(len, filler)),
    )
