"""Stage reward: a model that scores answers, learnt from preferences, for the alignments that answer while they train.

It is what SFT begins from with a score head; off unless `align.alignment` is online. Measured on held-out prompts by
accuracy, with an interval over prompts, and calibration (Guo et al. 2017, arXiv 1706.04599). Limits: held-out pairs
come from where the training pairs come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.errors import FlywheelError
from tasks.core.intervals import SMALLEST_SAMPLE, mean_interval
from tasks.core.params import Params
from tasks.core.training_params import RewardParams
from tasks.train.entry.training import TrainingStage, common_fields, counted
from tasks.train.run.handover import before_sft
from tasks.train.run.job import TrainingJob

BINS = 5  # of the confidence, from one half to one
LEVEL, RESAMPLES = 0.95, 10000


class NoPreferences(FlywheelError):
    """There is nothing to learn from, neither preferences nor a reward model."""


class RewardJob(TrainingJob):
    """`data` has train and validation: preferences as JSON lines."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/preference", "train/reward")
    worker: ClassVar[str] = "tasks.train.reward.worker"
    plot: ClassVar[Path] = layout.PLOTS / "reward_loss.csv"

    settings: RewardParams


class HeldOut(NamedTuple):
    """A pair the model has not seen: what was compared, by how much the better answer scores higher, and is longer."""

    kind: str
    margin: float
    longer: int


def describe(params: Params, domain: Domain) -> RewardJob:
    """The job that the settings ask for; see pairs for what is raised."""
    return RewardJob(data=pairs(domain), **common_fields("reward", params.reward, params, domain, before_sft()))


def pairs(domain: Domain) -> dict[str, Path]:
    """The files of preferences. Raises NoPreferences: stage pairs left none, with what to do."""
    data = {name: layout.PAIRS / f"{name}.jsonl" for name in ("train", "validation")}
    if not data["train"].stat().st_size:
        raise NoPreferences(
            f"there are no preferences to learn from: write {domain.folder}/preferences.jsonl (docs/alignment.md "
            "says how the default domain's was made), collect choices between drafts, or set align.alignment: none"
        )
    return data


def metrics_of(result: dict[str, Any], seed: int) -> dict[str, Any]:
    """The stage's metrics; accuracies and the calibration error are shares, losses in nats a pair."""
    metrics = counted(result)
    groups = [[HeldOut(*pair) for pair in group] for group in metrics.pop("held_out")]
    last = {curve: value for _, curve, value in result["history"] if curve != "train accuracy"}
    metrics |= {curve.replace(" ", "_"): value for curve, value in last.items()}
    return {**metrics, "held_out": judged(groups, seed)} if groups else metrics


def judged(groups: Sequence[Sequence[HeldOut]], seed: int) -> dict[str, Any]:
    """How good the scores are on held-out prompts, a list of pairs each."""
    pairs = [pair for group in groups for pair in group]
    by_prompt = [_mean([pair.margin > 0 for pair in group]) for group in groups]
    found: dict[str, Any] = {"prompts": len(groups), "pairs": len(pairs), "accuracy": _mean(by_prompt)}
    if len(groups) >= SMALLEST_SAMPLE:
        interval = mean_interval(by_prompt, level=LEVEL, resamples=RESAMPLES, seed=seed)
        found |= {"accuracy_low": interval.low, "accuracy_high": interval.high}
    kinds = sorted({pair.kind for pair in pairs})
    return {
        **found,
        "accuracy_by_kind": {kind: _mean([p.margin > 0 for p in pairs if p.kind == kind]) for kind in kinds},
        "longer_is_better": _mean([(pair.longer > 0) + (pair.longer == 0) / 2 for pair in pairs]),
        **calibration([pair.margin for pair in pairs]),
    }


def calibration(margins: Sequence[float]) -> dict[str, Any]:
    """Confidence σ(|margin|) against accuracy in BINS bins from 0.5 to 1, and the expected calibration error."""
    bins: dict[str, list[tuple[float, bool]]] = {}
    for margin in margins:
        confidence = 1.0 / (1.0 + math.exp(-abs(margin)))
        at = 0.5 + min(int((confidence - 0.5) * 2 * BINS), BINS - 1) / (2 * BINS)
        bins.setdefault(f"{at:.1f}-{at + 0.1:.1f}", []).append((confidence, margin > 0))
    reliability = {
        name: {"pairs": len(seen), "confidence": _mean([c for c, _ in seen]), "accuracy": _mean([r for _, r in seen])}
        for name, seen in sorted(bins.items())
    }
    error = sum(row["pairs"] / len(margins) * abs(row["accuracy"] - row["confidence"]) for row in reliability.values())
    return {"expected_calibration_error": error, "reliability": reliability}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def losses(history: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Step, split and loss; accuracies are left out of the curves."""
    return [(step, name.split()[0], value) for step, name, value in history if name.endswith(" loss")]


def summary(metrics: dict[str, Any], _: Params) -> str:
    """How long it was trained, and what it is worth."""
    told = f", held-out accuracy {metrics['held_out']['accuracy']:.3f}" if "held_out" in metrics else ""
    return f"{metrics['steps']} steps{told}"


STAGE = TrainingStage(
    "reward",
    layout.REWARD,
    RewardJob,
    describe,
    metrics=lambda result, params, _: metrics_of(result, params.seed),
    summary=summary,
    off=lambda params: (
        "" if params.align.online else f"align.alignment is {params.align.alignment}, which needs no reward model"
    ),
    plotted=lambda result: losses(result["history"]),
)

if __name__ == "__main__":
    STAGE.main()
