"""The estimate of a whole release's training; stages that have not run yet are taken as they would be."""

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
from tasks.core.prices import Prices, read_prices
from tasks.core.words import gib, rough
from tasks.train.linked_copy import inside, link_copy
from tasks.train.run.job import TrainingJob
from tasks.train.sizing.estimate import estimate_of, size

FOLDER = layout.HOME / "estimate"


class NothingToEstimate(FlywheelError):
    """What is asked for is switched off, or its data are not there."""


def estimate(
    root: Path,
    stage: str | None = None,
    probe: Literal["always", "known"] = "always",
    changes: Mapping[str, Any] | None = None,
    base: Path | None = None,
) -> dict[str, Any]:
    """Size all stages that are on, or one. Raises NothingToEstimate: it is off, or the data stages have not run.

    `changes` are settings by dotted name; `base` is another base model to take in place of what the stages left.
    """
    base = base and base.absolute()
    with inside(link_copy(root, (root / FOLDER).absolute(), changes or {}, keep_trained=base is None)):
        params, prices = load_params(), read_prices()
        wanted = [name for name in switched_on(params) if stage in (None, name)]
        if not wanted:
            raise NothingToEstimate(f"{stage or 'training'} is switched off in params.yaml")
        rows = [_estimated(name, params, probe, base, prices) for name in wanted]
        total = {
            "seconds": round(sum(row["time"]["seconds"] for row in rows), 1),
            "energy_kwh": round(sum(row["energy_kwh"] for row in rows), 5),
            "cost": round(sum(row["cost"] for row in rows), 4),
        }
        return {"domain": params.domain, "currency": prices.currency, "stages": rows, "total": total}


def switched_on(params: Params) -> list[str]:
    """The stages that will train."""
    off = {
        "pretrain": not params.pretrain.enabled,
        "reward": not params.align.online,
        "align": params.align.alignment == "none",
    }
    return [name for name in training_stages() if not off.get(name)]


def _estimated(
    stage: str, params: Params, probe: Literal["always", "known"], base: Path | None, prices: Prices
) -> dict[str, Any]:
    describe = importlib.import_module(f"tasks.train.{stage}.stage").describe
    planned = {"planned": True} if stage == "align" else {}  # a reward model that is not trained yet is as its base
    try:
        job: TrainingJob = describe(params, load_domain(params.domain), **planned)
        if base:
            other = {"base_model": base, "base_digest": base.name, "start": None, "start_digest": None}
            job = job.model_copy(update=other)
        return estimate_of(job, size(job, probe), prices)
    except FileNotFoundError as error:
        raise NothingToEstimate(
            f"{stage}: {error.filename} is missing; run what comes before: .venv/bin/dvc repro mix"
        ) from None


def words(found: dict[str, Any]) -> str:
    """The estimate as tables for people."""
    lines: list[str] = []
    for row in found["stages"]:
        lines += _stage_words(row, found["currency"])
    if len(found["stages"]) > 1:
        total = found["total"]
        lines.append(
            f"all of it: {rough(total['seconds'])}, {total['energy_kwh']:.3f} kWh, "
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
        f"  time        {rough(took['seconds'])} ({rough(took['low'])} to {rough(took['high'])}, by {took['source']})",
        f"  energy      {row['energy_kwh']:.3f} kWh, cost {row['cost']:.2f} {currency}",
        f"  {'elsewhere':<24}{'GPUs':>5}{'memory each':>13}{'time':>9}{'kWh':>8}{currency:>8}",
    ]
    for gpu in row["gpus"]:
        fits = "" if gpu["fits"] else "  does not fit"
        lines.append(
            f"  {gpu['name']:<24}{gpu['count']:>5}{gib(gpu['memory_bytes']):>13}{rough(gpu['seconds']):>9}"
            f"{gpu['energy_kwh']:>8.3f}{gpu['cost']:>8.2f}{fits}"
        )
    lines += [f"  cannot run here: {reason}" for reason in row["reasons"]]
    return lines + [f"  would fit: {change}" for change in row["would_fit"]]
