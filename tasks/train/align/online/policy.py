"""The policy that PPO trains: a language model with one more head, which expects the reward.

The value head is one linear layer over the policy's own last hidden state, zero at the start; both share what is
trained (Ziegler et al. 2019, arXiv 1909.08593, section 2). It leaves with the training and is in no checkpoint that
crosses.
Needs torch, transformers, trl and peft: import it in a worker process only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.train.align.online.rollouts import Answers
from tasks.train.run.held_weights import VALUE_HEAD


@dataclass(frozen=True)
class Reading:
    """What the policy says of answers, all (answers, answer columns): nats, units of the reward, nats."""

    logps: Tensor
    values: Tensor
    entropy: Tensor


def add_value_head(model: Any) -> None:
    """Give a policy its value head; call it after peft has frozen the rest."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = torch.nn.Linear(base.config.hidden_size, 1, device=base.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    setattr(base, VALUE_HEAD, head)


def drop_value_head(model: Any) -> None:
    """Take it away again, before a policy is counted, compared and saved."""
    delattr(model.get_base_model() if hasattr(model, "get_base_model") else model, VALUE_HEAD)


def read(model: Any, head: Any, answers: Answers, temperature: float) -> Reading:
    """Log-probabilities of the answers' tokens under the sampling's temperature, with values and entropies.

    Args:
        model: the policy, wrapped or not.
        head: its value head; without one all values are zero.
        answers: what was generated.
        temperature: that they were generated with.
    """
    from trl.trainer.utils import selective_log_softmax_and_entropy

    columns = answers.answer_mask.shape[1]
    output = model(
        input_ids=answers.tokens,
        attention_mask=answers.mask,
        use_cache=False,
        logits_to_keep=columns + 1,
        output_hidden_states=head is not None,
    )
    logits = output.logits[:, -columns - 1 : -1].float()
    chosen = answers.tokens[:, -columns:]
    logps, entropy = selective_log_softmax_and_entropy(
        logits, chosen, entropy_requires_grad=False, temperature=temperature
    )
    if head is None:
        return Reading(logps, torch.zeros_like(logps), entropy)
    hidden = output.hidden_states[-1][:, -columns - 1 : -1]
    values = head(hidden.to(head.weight.dtype)).squeeze(-1).float()
    return Reading(logps, values, entropy)
