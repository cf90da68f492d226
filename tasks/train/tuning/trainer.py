"""TRL's SFTTrainer with a planned order of batches and a loss that scores answers only. Needs torch and trl.

On CPU the loss is computed here, because TRL's fused head scores every position there (measured: half the speed).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from tasks.train.run.methods import virtual_positions
from tasks.train.tuning.batches import IGNORED, PlannedBatches

ROWS = 16  # of 49,152 words in fp32: three megabytes


def planned_arguments(options: dict[str, Any]) -> SFTConfig:
    """TRL's configuration over rows of token ids; validated one by one: no padding, a mean whatever the processes."""
    rows = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    return SFTConfig(**options, **rows, per_device_eval_batch_size=1)


class PlannedTrainer(SFTTrainer):
    """SFTTrainer whose batches come from `PlannedBatches`; its dataset has input_ids and labels already."""

    def get_train_dataloader(self) -> DataLoader:
        """This process's batches; they are dealt here, so accelerate has nothing to share out."""
        args = self.args
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        batches = PlannedBatches(
            lengths, args.per_device_train_batch_size, args.world_size, args.process_index, args.data_seed
        )
        self.add_callback(_NextEpoch(batches))
        return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Mean negative log-likelihood (nats) of the answer tokens of the step, over all processes."""
        if self.args.device.type != "cpu" or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        columns = (labels != IGNORED).any(dim=0).nonzero().flatten()
        given = {key: value for key, value in inputs.items() if key != "labels"}
        kept = columns + virtual_positions(self.model)
        logits = model(**given, use_cache=False, logits_to_keep=kept).logits
        targets = labels[:, columns]
        total = cross_entropy_sum(logits, targets)
        if num_items_in_batch is None:
            return total / (targets != IGNORED).sum()
        return total / num_items_in_batch * self.accelerator.num_processes


class _NextEpoch(TrainerCallback):
    """Tells the batches which epoch begins, also after a resume in its middle."""

    def __init__(self, batches: PlannedBatches) -> None:
        self._batches = batches

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._batches.epoch = int(state.epoch or 0)


def cross_entropy_sum(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of the negative log-likelihoods (nats, in fp32) of the targets that count; no second derivative.

    `logits` [..., words] is overwritten by its gradient; `targets` [...] may hold `IGNORED`. A few rows at a time go
    through the processor's cache, as in Liger kernels (arXiv 2410.10989): half the time of torch's, equal bits.
    """
    kept = targets != IGNORED
    if not kept.all():
        logits, targets = logits[kept], targets[kept]
    total: torch.Tensor = _CrossEntropy.apply(logits.flatten(0, -2), targets.flatten())
    return total


class _CrossEntropy(torch.autograd.Function):
    """Logits [rows, words] and targets [rows] to the sum of the negative log-likelihoods."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The gradient of a row is its probabilities, less one at the target."""
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for part, wanted in zip(logits.split(ROWS), targets[:, None].split(ROWS), strict=True):
            scores = part.float().log_softmax(-1)
            total -= scores.gather(1, wanted).sum()
            if ctx.needs_input_grad[0]:
                scores.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=scores.dtype))
                part.copy_(scores)
        ctx.gradient = logits if ctx.needs_input_grad[0] else None
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Scaled as a number, not as a tensor of the logits' precision, which would round it."""
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(float(gradients[0])), None
