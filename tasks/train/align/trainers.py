"""What DPO and KTO need of torch: TRL's trainers over encoded rows, with the reference's log-probabilities in them.

The reference is the policy before its first step; each answer is scored once, the processes share the work, and a
resumed run gets the very same numbers. Limits: under ZeRO-3 the weights are gathered whole while they are scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from trl import DPOTrainer, KTOTrainer

from tasks.train.run.held_weights import whole
from tasks.train.run.methods import drop_reference, virtual_positions

# Column of the rows with an answer → the one that gets the log-probability of it after `prompt_ids`.
COLUMNS = {
    "chosen_ids": "ref_chosen_logps",
    "rejected_ids": "ref_rejected_logps",
    "completion_ids": "ref_logps",
    "KL_completion_ids": "ref_KL_logps",
}
Ids = tuple[int, ...]


def add_reference(model: Any, rows: Sequence[dict[str, Any]], arguments: Any) -> None:
    """Give each row, in place, the log-probability (nats, summed over tokens) of its answers under `model`."""
    wanted = sorted({(tuple(row["prompt_ids"]), tuple(row[name])) for row in rows for name in COLUMNS if name in row})
    mine = wanted[arguments.process_index :: arguments.world_size]
    model.to(arguments.device)
    training = model.training
    model.eval()
    with torch.no_grad(), whole(list(model.parameters())):
        scored = [(one, log_probability(model, *one)) for one in mine]
    model.train(training)
    found = dict(gather_object(scored))
    for row in rows:
        for answer, column in COLUMNS.items():
            if answer in row:
                row[column] = found[tuple(row["prompt_ids"]), tuple(row[answer])]


def log_probability(model: Any, prompt: Ids, answer: Ids) -> float:
    """log π(answer | prompt) in nats, summed over the answer's tokens."""
    ids = torch.tensor([prompt + answer], device=next(model.parameters()).device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    first = virtual_positions(model) + len(prompt) - 1
    scores = logits[0, first : first + len(answer)].float().log_softmax(dim=-1)
    return scores.gather(1, ids[0, len(prompt) :, None]).sum().item()


class Encoded:
    """What both have in common, before TRL's own trainer in the order of bases."""

    model: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        drop_reference(self.model)  # the rows bring what it is for

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    _precompute_ref_logps = _prepare_dataset


class EncodedDpo(Encoded, DPOTrainer):
    """DPOTrainer over `dpo_rows`."""


class EncodedKto(Encoded, KTOTrainer):
    """KTOTrainer over `kto_rows`."""
