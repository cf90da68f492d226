"""The estimate of a whole release's training: every stage that the settings switch on, one after the other.

Stages that have not run yet are taken as they would be: the size of what they leave changes little for the next.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.errors import FlywheelError
from tasks.core.graph import training_stages
from tasks.core.params import Params, load_params
from tasks.train.linked_copy import inside, link_copy
from tasks.train.run.handover import kind_of
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.estimate import clock, estimate_of
from tasks.train.sizing.machines import Prices, read_prices
from tasks.train.sizing.sizing import gib, size

FOLDER = layout.HOME / "estimate"


class NothingToEstimate(FlywheelError):
    """What is asked for is switched off, or its data are not there."""


def estimate(
    root: Path,
    stage: str | None = None,
    probe: Literal["always", "known"] = "always",
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Size all stages that are on, or one of them; `changes` are settings by dotted name.

    Raises:
        NothingToEstimate: the stage is off, or the data stages have not run.
    """
    with inside(link_copy(root, (root / FOLDER).absolute(), changes or {}, keep_trained=True)):
        params, prices = load_params(), read_prices()
        wanted = [name for name in switched_on(params) if stage in (None, name)]
        if not wanted:
            raise NothingToEstimate(f"{stage or 'training'} is switched off in params.yaml")
        rows = [_estimated(params, name, probe, prices) for name in wanted]
        total = {
            "seconds": round(sum(row["time"]["seconds"] for row in rows), 1),
            "energy_kwh": round(sum(row["energy_kwh"] for row in rows), 5),
            "cost": round(sum(row["cost"] for row in rows), 4),
        }
        return {"domain": params.domain, "currency": prices.currency, "stages": rows, "total": total}


def estimate_base(root: Path, base: Path) -> dict[str, Any]:
    """What supervised fine-tuning would take from another base model, by formula.

    Raises:
        NothingToEstimate: the data stages have not run.
    """
    from tasks.train.sft.stage import describe

    folder = link_copy(root, (root / FOLDER).absolute(), {}, keep_trained=False)
    own = base.absolute()
    with inside(folder):
        params = load_params()
        try:
            job = describe(params, load_domain(params.domain))
        except FileNotFoundError as error:
            raise NothingToEstimate(f"sft: {error.filename} is missing; run .venv/bin/dvc repro mix") from None
        other = job.model_copy(update={"base_model": own, "base_digest": own.name, "start": None, "start_digest": None})
        return estimate_of(size(other), read_prices())


def switched_on(params: Params) -> list[str]:
    """The stages that will train."""
    on = {
        "pretrain": params.pretrain.enabled,
        "sft": True,
        "reward": params.align.online,
        "align": params.align.alignment != "none",
    }
    return [name for name in training_stages() if on[name]]


def _estimated(params: Params, stage: str, probe: Literal["always", "known"], prices: Prices) -> dict[str, Any]:
    try:
        job, real = _job(stage, params)
        return estimate_of(size(job, probe if real else "known"), prices)
    except FileNotFoundError as error:
        raise NothingToEstimate(
            f"{stage}: {error.filename} is missing; run what comes before: .venv/bin/dvc repro mix"
        ) from None


def _job(stage: str, params: Params) -> tuple[TrainingJob, bool]:
    """A stage's job, and whether it could be started: a reward model that is not trained yet is taken as its base."""
    describe, domain = importlib.import_module(f"tasks.train.{stage}.stage").describe, load_domain(params.domain)
    if stage == "align" and params.align.online and kind_of(layout.REWARD) == "none":
        return describe(params, domain, planned=True), False
    return describe(params, domain), True


def words(found: dict[str, Any]) -> str:
    """The estimate as tables for people."""
    lines: list[str] = []
    for row in found["stages"]:
        lines += _stage_words(row, found["currency"])
    if len(found["stages"]) > 1:
        total = found["total"]
        lines.append(
            f"all of it: {clock(total['seconds'])}, {total['energy_kwh']:.3f} kWh, "
            f"{total['cost']:.2f} {found['currency']}"
        )
    return "\n".join(lines)


def _stage_words(row: dict[str, Any], currency: str) -> list[str]:
    took, memory, parameters, work = row["time"], row["memory"], row["parameters"], row["work"]
    lines = [
        f"{row['stage']}: {row['method']}, {row['precision']}, {row['processes']} processes ({row['launch']})",
        f"  trained     {parameters['trained']:,} of {parameters['all']:,} parameters ({parameters['share']:.2%})",
        f"  work        {work['examples']:,} examples, {work['tokens']:,} tokens, {work['steps']:,} steps",
        f"  memory      {gib(memory['needed'])} of {gib(memory['available'])} free; a process:",
    ]
    parts = [(name, size) for name, size in memory["per_process"].items() if size and name != "total"]
    lines += [f"    {name:<12}{gib(size):>10}" for name, size in parts]
    lines += [
        f"  disk        {gib(row['disk']['needed'])} of {gib(row['disk']['available'])} free",
        f"  time        {clock(took['seconds'])} ({clock(took['low'])} to {clock(took['high'])}, by {took['source']})",
        f"  energy      {row['energy_kwh']:.3f} kWh, cost {row['cost']:.2f} {currency}",
        f"  {'elsewhere':<24}{'GPUs':>5}{'memory each':>13}{'time':>9}{'kWh':>8}{currency:>8}",
    ]
    for gpu in row["gpus"]:
        fits = "" if gpu["fits"] else "  does not fit"
        lines.append(
            f"  {gpu['name']:<24}{gpu['count']:>5}{gib(gpu['memory_bytes']):>13}{clock(gpu['seconds']):>9}"
            f"{gpu['energy_kwh']:>8.3f}{gpu['cost']:>8.2f}{fits}"
        )
    lines += [f"  cannot run here: {reason}" for reason in row["reasons"]]
    return lines + [f"  would fit: {change}" for change in row["would_fit"]]
