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
from tasks.core.files import verify_manifest, write_json, write_text
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.core.start import goes_on
from tasks.train.align.job import AlignJob, OnlineJob, PreferenceJob
from tasks.train.entry.execute import execute, run_folder
from tasks.train.reward.stage import NoPreferences, no_preferences
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import after_sft, before_sft, held_to, kind_of, write_nothing, write_trained
from tasks.train.run.job import launch_files, read_result
from tasks.train.run.launch import CONFIGS, read_launch
from tasks.train.run.precision import resolve_precision

METRICS = layout.METRICS / "align.json"
PLOT = layout.PLOTS / "align.csv"


class NoReward(FlywheelError):
    """An online alignment has no reward model to learn from."""


def describe(params: Params, domain: Domain, planned: bool = False) -> AlignJob:
    """The job that the settings ask for; `planned`: to be sized only, before there is a reward model.

    Raises:
        NoPreferences: DPO or KTO, and stage pairs left none.
        NoReward: an online alignment, and stage reward left no model.
    """
    begin = after_sft()
    launch = read_launch(params.align.launch)
    common: dict[str, Any] = {
        "stage": "align",
        "base_model": begin.base,
        "base_digest": begin.base_digest,
        "system": domain.system_text(),
        "seed": params.seed,
        "processes": launch["num_processes"],
        "settings": params.align.model_copy(update={"precision": resolve_precision(params.align.precision, launch)}),
        "method": params.methods.of(params.align.method).model_dump(),
        "start": begin.adapter,
        "start_digest": begin.adapter_digest,
        "launch_files": launch_files(params.align.launch, launch, CONFIGS),
    }
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


def plot_of(result: dict[str, Any]) -> str:
    """The curves as CSV: step, curve, value."""
    return "step,curve,value\n" + "".join(f"{step},{curve},{value}\n" for step, curve, value in result["history"])


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
        write_json(METRICS, {"steps": 0})
        write_text(PLOT, plot_of({"history": []}))
        return write_nothing(layout.ALIGN, reason)
    domain = load_domain(params.domain)
    job = describe(params, domain)
    run = run_folder(job)
    done = execute(job, run)
    result = read_result(done)
    digest = write_trained(done, layout.ALIGN, domain.base_model.name)
    write_json(METRICS, metrics_of(result))
    write_text(PLOT, plot_of(result))
    forget(run)
    return f"{params.align.alignment}, {result['steps']} steps, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("align", stage)


if __name__ == "__main__":
    main()
