"""TRL's DPOTrainer and KTOTrainer over rows that are encoded, with the reference's log-probabilities, already.

Needs torch, transformers, trl and peft: import it in a worker process only. Both would encode texts themselves, keep a
copy of the adapter as reference, and compute its log-probabilities with one process's temporary files, which a second
process does not find.
"""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer, KTOTrainer

from tasks.train.run.methods import drop_reference


class Encoded:
    """What both have in common, before TRL's own trainer in the order of bases."""

    model: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        drop_reference(self.model)  # the rows bring what it is for

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def _precompute_ref_logps(self, dataset: Any, *_: Any) -> Any:
        return dataset


class EncodedDpo(Encoded, DPOTrainer):
    """DPOTrainer over `dpo_rows`."""


class EncodedKto(Encoded, KTOTrainer):
    """KTOTrainer over `kto_rows`."""
