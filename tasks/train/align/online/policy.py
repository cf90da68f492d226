"""The policy of an online training: what it answers while it trains, and what it says of the answers' tokens.

Prompts are padded on the left and answers on the right. Randomness is seeded for each update and process, so that a
resumed run draws the same answers. Needs torch and trl.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.core.records import Example
from tasks.text.passages import asked
from tasks.text.prompts import encode_text, render_prompt
from tasks.train.align.stage import OnlineJob
from tasks.train.run.held_weights import VALUE_HEAD
from tasks.train.run.methods import prepared, refuse_partition
from tasks.train.run.online_plan import OnlinePlan
from tasks.train.run.worker import common_arguments, load_model

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


class PolicyReading(NamedTuple):
    """What the policy says of answers, all (answers, answer columns): nats, units of the reward, nats."""

    logps: Tensor
    values: Tensor
    entropy: Tensor


def load_policy(job: OnlineJob) -> Any:
    """The policy with what the method trains. Raises MethodUnavailable: not in this partition.

    Call it once the trainer's arguments exist: before, ZeRO-3 is neither seen nor used to load.
    """
    refuse_partition(job)  # before anything is loaded
    return prepared(load_model(job), job)


def online_options(job: OnlineJob, run: Path, plan: OnlinePlan) -> dict[str, Any]:
    """What the configurations of PPO, RLOO and GRPO have in common."""
    return {
        **common_arguments(job, run),
        "max_steps": plan.steps,
        "per_device_train_batch_size": plan.micro,
        "gradient_accumulation_steps": plan.accumulation,
        "save_steps": plan.save_every(job.settings.save_every),
    }


def prompt_rows(
    tokenizer: Any, system: str, examples: Sequence[Example], max_tokens: int
) -> tuple[list[list[int]], int]:
    """Token ids of the domain's prompts, each once, and the number of those left out because they are longer."""
    rendered = {
        render_prompt(tokenizer, example.system or system, asked(example), example.history): None
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
    """One sampled answer of at most `longest` tokens to each prompt, by an unwrapped model in evaluation mode."""
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


def read(model: Any, head: Any, answers: Answers, temperature: float) -> PolicyReading:
    """Log-probabilities of the answers' tokens under `temperature`, values (0 without a head) and entropies."""
    from trl.trainer.utils import selective_log_softmax_and_entropy

    columns = answers.answer_mask.shape[1]
    output = model(
        input_ids=answers.tokens,
        attention_mask=answers.mask,
        use_cache=False,
        logits_to_keep=columns + 1,
        output_hidden_states=head is not None,
    )
    logps, entropy = selective_log_softmax_and_entropy(
        output.logits[:, -columns - 1 : -1].float(),
        answers.tokens[:, -columns:],
        entropy_requires_grad=False,
        temperature=temperature,
    )
    if head is None:
        return PolicyReading(logps, torch.zeros_like(logps), entropy)
    hidden = output.hidden_states[-1][:, -columns - 1 : -1]
    return PolicyReading(logps, head(hidden.to(head.weight.dtype)).squeeze(-1).float(), entropy)


def bare(model: Any) -> Any:
    """The model without peft's wrapping, where the value head lies."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def add_value_head(model: Any) -> None:
    """Give a policy, frozen by peft, one more head, which expects the reward and leaves with the training.

    One linear layer over the last hidden state, zero at the start (Ziegler et al. 2019, arXiv 1909.08593, section 2).
    """
    base = bare(model)
    head = torch.nn.Linear(base.config.hidden_size, 1, device=base.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    setattr(base, VALUE_HEAD, head)
