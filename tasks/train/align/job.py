"""What stage align hands to its workers: from which policy, by which preferences or reward model.

The policy that training begins from, and is held to, is `base_model` with the adapter `start` over it where there is
one: the SFT policy, never the plain base model where an SFT adapter exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from tasks.core.training_params import AlignParams
from tasks.train.run.job import TrainingJob


class AlignJob(TrainingJob):
    """What both kinds of alignment have."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/preference", "train/align")

    settings: AlignParams


class PreferenceJob(AlignJob):
    """DPO and KTO. `data` has train and validation: preferences as JSON lines, data/pairs.

    The policy is held to the adapter `reference` over `reference_base`; where that is None, to itself as it begins.
    """

    worker: ClassVar[str] = "tasks.train.align.worker"

    reference_base: Path | None = None
    reference_base_digest: str | None = None
    reference: Path | None = None
    reference_digest: str | None = None


class OnlineJob(AlignJob):
    """PPO, RLOO and GRPO. `data` has prompts and held_out: examples as JSON lines, of which only prompts are used.

    `reward` is models/reward/adapter or models/reward/model; `reward_base` the weights that such an adapter lies over.
    tasks/train/preference/reward_model.py loads them.
    """

    worker: ClassVar[str] = "tasks.train.align.online.worker"

    reward: Path
    reward_digest: str
    reward_base: Path
    reward_base_digest: str
