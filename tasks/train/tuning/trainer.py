"""TRL's SFTTrainer with a planned order of batches and a loss that scores answers only.

Needs torch, transformers, trl and peft: import it in a worker process only. Limits: on CPU the loss is computed here,
because TRL's fused head scores every position there, prompt and padding too (measured: half the speed); on GPUs it is
TRL's own.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from tasks.train.run.methods import virtual_positions
from tasks.train.tuning.batches import IGNORED, PlannedBatches
from tasks.train.tuning.scoring import cross_entropy_sum


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
        """Mean negative log-likelihood (nats) of the answer tokens of the whole step, over all processes.

        On CPU the head is asked only for the columns in which some row has an answer token.
        """
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
