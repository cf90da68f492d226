"""Weak spots: the examples whose answers the model finds hardest are looked at, and seen more often if they are sound.

Hardness is the perplexity of the answer, exp of its mean negative log-likelihood a token, by the model that training
starts from: the base model, or the champion's adapter where a night goes on from it. A hard example may simply be bad,
so it is weighted only if its perplexity is believable and its evidence, where it has any, supports its answer.
Limits: perplexities of one tokenizer compare with one another only; answers of a token or two vary most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import Params
from tasks.core.records import Example
from tasks.core.start import adapter_to_continue, weights_to_continue
from tasks.text.grounding import groundedness
from tasks.text.likelihood import answer_losses, load_model
from tasks.text.prompts import encode_example

BATCH = 8  # sequences a pass


@dataclass(frozen=True)
class Spots:
    """Ids of sound weak spots, the hardest first, and of those that look bad, with what is wrong with them."""

    weak: list[str]
    doubtful: dict[str, str]


def weak_spots(examples: Sequence[Example], params: Params) -> Spots:
    """The `mix.boost.share` of examples with the highest perplexity, sound and doubtful ones apart."""
    model, tokenizer = load_model(weights_to_continue() or layout.BASE_MODEL, adapter_to_continue())
    system = load_domain(params.domain).system_text()
    pairs = [encode_example(tokenizer, system, example, params.sft.max_tokens) for example in examples]
    perplexities = [math.exp(min(loss, 700.0)) for loss in answer_losses(model, pairs, BATCH)] if pairs else []
    return sort_spots(examples, perplexities, params)


def sort_spots(examples: Sequence[Example], perplexities: Sequence[float], params: Params) -> Spots:
    """See weak_spots; equal perplexities rank by id."""
    order = sorted(zip(examples, perplexities, strict=True), key=lambda pair: (-pair[1], pair[0].id))
    weak, doubtful = [], {}
    for example, perplexity in order[: round(params.mix.boost.share * len(order))]:
        problem = _problem(example, perplexity, params)
        if problem:
            doubtful[example.id] = f"a weak spot not weighted: {problem}"
        else:
            weak.append(example.id)
    return Spots(weak, doubtful)


def _problem(example: Example, perplexity: float, params: Params) -> str | None:
    if perplexity > params.mix.boost.max_perplexity:
        return f"perplexity {perplexity:.4g} is above {params.mix.boost.max_perplexity:g}"
    if example.evidence:
        grounded = groundedness(example.output, example.evidence, example.prompt)
        if grounded < params.construct_.self_qa.min_groundedness:
            return f"groundedness {grounded:.2f} is below {params.construct_.self_qa.min_groundedness:g}"
    return None
