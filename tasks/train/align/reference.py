"""What the reference policy thinks of the answers: log-probabilities, computed once before training.

Needs torch: import it in a worker process only. The reference is the policy before its first step. Each answer is
scored once, however many pairs it is in; the processes share the work. The result lies in the run's folder, so that a
run which goes on from a checkpoint reads the very same numbers.
Limits: under ZeRO-3 the weights are gathered whole in every process while they are scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tasks.core.files import digest_of, write_json
from tasks.train.run.methods import virtual_positions

NAME = "reference.json"
# Column of the rows with an answer → the one that gets the log-probability of it after `prompt_ids`.
COLUMNS = {
    "chosen_ids": "ref_chosen_logps",
    "rejected_ids": "ref_rejected_logps",
    "completion_ids": "ref_logps",
    "KL_completion_ids": "ref_KL_logps",
}
Ids = tuple[int, ...]


def add_reference(model: Any, rows: Sequence[dict[str, Any]], run: Path, arguments: Any) -> None:
    """Give each row the reference's log-probability (nats, summed over tokens) of each of its answers.

    Args:
        model: the policy before training, not yet handed to a trainer.
        rows: changed in place.
        run: where the numbers are kept.
        arguments: of the trainer: the processes and the device.
    """
    wanted = {(tuple(r["prompt_ids"]), tuple(r[name])) for r in rows for name in COLUMNS if name in r}
    found = _kept(run / NAME, arguments)
    if not all(_key(*one) in found for one in wanted):
        found = _score(model, sorted(wanted), arguments)
        if arguments.process_index == 0:
            write_json(run / NAME, found)
    for row in rows:
        for answer, column in COLUMNS.items():
            if answer in row:
                row[column] = found[_key(tuple(row["prompt_ids"]), tuple(row[answer]))]


def _kept(path: Path, arguments: Any) -> dict[str, float]:
    """What the first process finds: were each to look for itself, some could go on while others wait for them."""
    found: list[dict[str, float]] = [{}]
    if arguments.process_index == 0 and path.is_file():
        found = [json.loads(path.read_text(encoding="utf-8"))]
    if arguments.world_size > 1:
        torch.distributed.broadcast_object_list(found, src=0)
    return found[0]


def _key(prompt: Ids, answer: Ids) -> str:
    return digest_of([prompt, answer])


def _score(model: Any, wanted: Sequence[tuple[Ids, Ids]], arguments: Any) -> dict[str, float]:
    size, rank = arguments.world_size, arguments.process_index
    model.to(arguments.device)
    training = model.training
    model.eval()
    with torch.no_grad(), _whole(model):
        mine = {_key(*one): log_probability(model, *one) for one in wanted[rank::size]}
    model.train(training)
    if size == 1:
        return mine
    parts: list[dict[str, float]] = [{} for _ in range(size)]
    torch.distributed.all_gather_object(parts, mine)
    return {key: value for part in parts for key, value in part.items()}


def log_probability(model: Any, prompt: Ids, answer: Ids) -> float:
    """log π(answer | prompt) in nats, summed over the answer's tokens."""
    ids = torch.tensor([prompt + answer], device=next(model.parameters()).device)
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    first = virtual_positions(model) + len(prompt) - 1
    scores = logits[0, first : first + len(answer)].float().log_softmax(dim=-1)
    return scores.gather(1, ids[0, len(prompt) :, None]).sum().item()


@contextmanager
def _whole(model: Any) -> Iterator[None]:
    """The weights put together where ZeRO-3 shares them out."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(model.parameters())):
        yield
