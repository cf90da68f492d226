"""Stage align: the SFT policy is brought nearer to what people prefer; off by default. No torch here.

DPO and KTO learn from preferences directly (worker.py); in PPO, RLOO and GRPO the policy answers and the reward model
judges (online/worker.py). All begin from the SFT policy and are held to it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.files import verify_manifest
from tasks.core.params import Params
from tasks.core.pointers import goes_on
from tasks.core.training_params import AlignParams
from tasks.train.entry.training import TrainingStage, common_fields, counted
from tasks.train.reward.stage import NoPreferences, pairs
from tasks.train.run.handover import after_sft, before_sft, held_to, kind_of
from tasks.train.run.job import TrainingJob


class AlignJob(TrainingJob):
    """What both kinds have. Training begins from `base_model` with the adapter `start` over it: the SFT policy."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/preference", "train/align")
    plot: ClassVar[Path] = layout.PLOTS / "align.csv"
    columns: ClassVar[str] = "step,curve,value"

    settings: AlignParams


class PreferenceJob(AlignJob):
    """DPO and KTO. `data` has train and validation: preferences as JSON lines.

    The policy is held to the adapter `reference` over `reference_base`; where that is None, to itself as it begins.
    """

    worker: ClassVar[str] = "tasks.train.align.worker"

    reference_base: Path | None = None
    reference_base_digest: str | None = None
    reference: Path | None = None
    reference_digest: str | None = None


class OnlineJob(AlignJob):
    """PPO, RLOO and GRPO. `data` has prompts and held_out: examples as JSON lines, of which only prompts are used.

    `reward` is models/reward/adapter, over `reward_base`, or models/reward/model.
    """

    worker: ClassVar[str] = "tasks.train.align.online.worker"

    reward: Path
    reward_digest: str
    reward_base: Path
    reward_base_digest: str


def describe(params: Params, domain: Domain, planned: bool = False) -> AlignJob:
    """The job; `planned`: only to be sized. Raises NoPreferences: pairs or reward left nothing to learn from."""
    common = common_fields("align", params.align, params, domain, after_sft())
    if not params.align.online:
        held = held_to()
        fields: dict[str, Any] = {"data": pairs(domain), **common}
        if held is not None:
            fields |= {"reference_base": held.base, "reference_base_digest": held.base_digest}
            fields |= {"reference": held.adapter, "reference_digest": held.adapter_digest}
        return PreferenceJob(**fields)
    kind, before = kind_of(layout.REWARD), before_sft()
    if kind == "none" and not planned:
        raise NoPreferences("there is no reward model for an online alignment; run the stage reward: dvc repro reward")
    reward = before.base if kind == "none" else layout.REWARD / kind
    return OnlineJob(
        data={"prompts": layout.MIX / "train.jsonl", "held_out": layout.MIX / "validation.jsonl"},
        reward=reward,
        reward_digest=verify_manifest(reward),
        reward_base=before.base,
        reward_base_digest=before.base_digest,
        **common,
    )


def metrics_of(result: dict[str, Any]) -> dict[str, Any]:
    """The stage's metrics: what was counted, and of each curve its first and last value (`_before` the first)."""
    metrics = counted(result)
    for _, curve, value in result["history"]:
        name = curve.replace(" ", "_")
        metrics.setdefault(f"{name}_before", value)
        metrics[name] = value
    return metrics


def nothing_to_align(params: Params) -> str:
    """Why there is nothing to align, or ""."""
    if params.align.alignment == "none":
        return "align.alignment is none"
    if params.align.online or not goes_on() or (layout.PAIRS / "train.jsonl").stat().st_size:
        return ""
    return "the champion has learnt every preference that there is"


STAGE = TrainingStage(
    "align",
    layout.ALIGN,
    AlignJob,
    describe,
    metrics=lambda result, *_: metrics_of(result),
    summary=lambda metrics, params: f"{params.align.alignment}, {metrics['steps']} steps",
    off=nothing_to_align,
)

if __name__ == "__main__":
    STAGE.main()
