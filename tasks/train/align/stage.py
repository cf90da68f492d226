"""Stage align: the SFT policy is brought nearer to what people prefer; off by default.

DPO and KTO learn from preferences directly (tasks/train/align/worker.py); PPO, RLOO and GRPO let the policy answer
and the reward model judge (tasks/train/align/online/worker.py). All begin from the SFT policy and are held to it. Like
sft, the stage itself imports no torch, and a run that was killed goes on from its last complete checkpoint.
"""

from __future__ import annotations

from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import verify_manifest
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.core.start import goes_on
from tasks.train.align.job import AlignJob, OnlineJob, PreferenceJob
from tasks.train.entry.training import Place, common_fields, switched_off, train
from tasks.train.reward.stage import NoPreferences, no_preferences
from tasks.train.run.handover import after_sft, before_sft, held_to, kind_of
from tasks.train.run.job import curves

PLACE = Place(layout.ALIGN, "align", layout.PLOTS / "align.csv", "step,curve,value")


class NoReward(FlywheelError):
    """An online alignment has no reward model to learn from."""


def describe(params: Params, domain: Domain, planned: bool = False) -> AlignJob:
    """The job that the settings ask for; `planned`: to be sized only, before there is a reward model.

    Raises:
        NoPreferences: DPO or KTO, and stage pairs left none.
        NoReward: an online alignment, and stage reward left no model.
    """
    common = common_fields("align", params.align, params, domain, after_sft())
    return _online(common, planned) if params.align.online else _preference(common, domain)


def _preference(common: dict[str, Any], domain: Domain) -> PreferenceJob:
    data = {name: layout.PAIRS / f"{name}.jsonl" for name in ("train", "validation")}
    if not data["train"].stat().st_size:
        raise NoPreferences(no_preferences(domain))
    held = held_to()
    if held is None:
        return PreferenceJob(data=data, **common)
    return PreferenceJob(
        data=data,
        reference_base=held.base,
        reference_base_digest=held.base_digest,
        reference=held.adapter,
        reference_digest=held.adapter_digest,
        **common,
    )


def _online(common: dict[str, Any], planned: bool) -> OnlineJob:
    kind, before = kind_of(layout.REWARD), before_sft()
    if kind == "none" and not planned:
        raise NoReward("there is no reward model for an online alignment; run the stage reward: dvc repro reward")
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
    metrics = {key: value for key, value in result.items() if key != "history"}
    for _, curve, value in result["history"]:
        name = curve.replace(" ", "_")
        metrics.setdefault(f"{name}_before", value)
        metrics[name] = value
    return metrics


def nothing_to_align(params: Params) -> str:
    """Why there is nothing to align, or ""."""
    if params.align.alignment == "none":
        return "align.alignment is none"
    learns_pairs = not params.align.online and goes_on()
    if learns_pairs and not (layout.PAIRS / "train.jsonl").stat().st_size:
        return "the champion has learnt every preference that there is"
    return ""


def stage() -> str:
    """Align, or pass the SFT policy on where alignment is off, or a night has no new preferences."""
    params = load_params()
    if reason := nothing_to_align(params):
        return switched_off(PLACE, reason)
    domain = load_domain(params.domain)
    metrics, digest = train(
        describe(params, domain),
        PLACE,
        domain.base_model.name,
        lambda result: (metrics_of(result), curves(result["history"], PLACE.columns)),
    )
    return f"{params.align.alignment}, {metrics['steps']} steps, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("align", stage)


if __name__ == "__main__":
    main()
