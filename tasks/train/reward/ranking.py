"""TRL's RewardTrainer with all answers to a prompt ranked together. Needs torch, trl and peft.

TRL takes one pair a row; here an answer passes once, and a prompt's pairs are one comparison in the mean (Ouyang et al.
2022, arXiv 2203.02155, equation 1), without which answers of many pairs are overfitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import logsigmoid
from torch.nn.utils.rnn import pad_sequence
from trl import RewardTrainer

from tasks.train.preference.rows import Group
from tasks.train.run import heartbeat
from tasks.train.run.worker import shares


def ranking_loss(scores: torch.Tensor, pairs: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
    """The mean over prompts of the mean of −log σ(r_better − r_worse) over the pairs of a prompt, in nats.

    scores: (answers,). pairs: (pairs, 2), better and worse answer. prompts: (pairs,), counted from 0 without gaps.
    """
    losses = -logsigmoid(margins_of(scores, pairs))
    counts = torch.bincount(prompts)
    return (losses / counts[prompts]).sum() / len(counts)


def margins_of(scores: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """(pairs,) score of the better answer less that of the worse, in fp32."""
    found = scores.float()
    return found[pairs[:, 0]] - found[pairs[:, 1]]


def collate(rows: Sequence[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """A padded batch of groups: ids and mask (answers, columns), pairs (pairs, 2) and their prompts (pairs,)."""
    sequences = [torch.tensor(ids) for row in rows for ids in row["sequences"]]
    pairs, prompts, answers = [], [], 0
    for number, row in enumerate(rows):
        pairs += [[answers + better, answers + worse] for better, worse in row["pairs"]]
        prompts += [number] * len(row["pairs"])
        answers += len(row["sequences"])
    return {
        "input_ids": pad_sequence(sequences, batch_first=True, padding_value=pad),
        "attention_mask": pad_sequence([torch.ones_like(ids) for ids in sequences], batch_first=True),
        "pairs": torch.tensor(pairs),
        "prompts": torch.tensor(prompts),
    }


def rows_of(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """What the collator reads."""
    return [{"sequences": group.sequences, "pairs": [list(pair) for pair in group.pairs]} for group in groups]


class RankingTrainer(RewardTrainer):
    """RewardTrainer over groups of answers; its datasets are `rows_of` groups already."""

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """TRL would look for pairs of texts to encode."""
        return dataset

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The ranking loss of a batch of prompts."""
        outputs = self._forward(model, inputs)
        scores = outputs.logits[:, 0]
        loss = ranking_loss(scores, inputs["pairs"], inputs["prompts"])
        right = (margins_of(scores, inputs["pairs"]) > 0).float().mean()
        self._metrics["train"]["accuracy"].append(self.accelerator.gather(right).mean().item())
        return (loss, outputs) if return_outputs else loss

    def _forward(self, model: Any, inputs: dict[str, Any]) -> Any:
        return model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)

    def held_out_margins(self) -> list[list[float]]:
        """By held-out prompt its pairs' margins, alike in every process; each scores as many, for ZeRO-3."""
        rows = self.eval_dataset
        self.model.eval()
        found: list[tuple[int, list[float]]] = []
        for number in shares(len(rows), self.args.process_index, self.args.world_size):
            batch = self._prepare_inputs(self.data_collator([rows[number]]))
            with torch.no_grad():
                scores = self._forward(self.model_wrapped, batch).logits[:, 0]
            found.append((number, margins_of(scores, batch["pairs"]).tolist()))
            heartbeat.note("training")
        together = dict(gather_object(found))
        return [together[number] for number in range(len(rows))]

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Loss and accuracy on the held-out prompts, each the mean over prompts of the mean over pairs."""
        margins = self.held_out_margins()
        each = [torch.tensor(one) for one in margins]
        metrics = {
            f"{metric_key_prefix}_loss": torch.stack([-logsigmoid(one).mean() for one in each]).mean().item(),
            f"{metric_key_prefix}_accuracy": torch.stack([(one > 0).float().mean() for one in each]).mean().item(),
        }
        self.log(dict(metrics))
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
