"""What every training stage does: fill in its job, carry it out, and put what it gave in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tasks.core.domain import Domain
from tasks.core.files import write_text
from tasks.core.metrics import write_metrics
from tasks.core.params import Params
from tasks.core.training_params import TrainingParams
from tasks.train.entry.execute import execute, run_folder
from tasks.train.entry.figures import figures_of
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import Weights, write_nothing, write_trained
from tasks.train.run.job import TrainingJob, curves, launch_files, read_result
from tasks.train.run.launch import CONFIGS, read_launch
from tasks.train.run.precision import resolve_precision

Result = dict[str, Any]  # what the workers noted: `history`, rows of step, curve and value, and counts


class Place(NamedTuple):
    """Where a stage leaves its weights, its metrics and its curves."""

    weights: Path
    name: str  # of the stage, and of its metrics
    plot: Path
    columns: str = "step,split,loss"  # of the curves


def common_fields(
    stage: str, settings: TrainingParams, params: Params, domain: Domain, begin: Weights
) -> dict[str, Any]:
    """The fields that the jobs of all stages have; `settings` is the stage's own section of `params`."""
    launch = read_launch(settings.launch)
    return {
        "stage": stage,
        "base_model": begin.base,
        "base_digest": begin.base_digest,
        "system": domain.system_text(),
        "seed": params.seed,
        "processes": launch["num_processes"],
        "settings": settings.model_copy(update={"precision": resolve_precision(settings.precision, launch)}),
        "method": params.methods.of(settings.method).model_dump(),
        "start": begin.adapter,
        "start_digest": begin.adapter_digest,
        "launch_files": launch_files(settings.launch, launch, CONFIGS),
    }


def train(
    job: TrainingJob, place: Place, base_name: str, told: Callable[[Result], tuple[dict[str, Any], str]]
) -> tuple[dict[str, Any], str]:
    """Train, then put weights, metrics and curves in their places; only then are the checkpoints removed.

    Args:
        base_name: the base model, as an adapter names it.
        told: the metrics and the curves of a result.

    Returns:
        The metrics, and the digest of the weights.
    """
    run = run_folder(job)
    done = execute(job, run)
    metrics, plot = told(read_result(done))
    digest = write_trained(done, place.weights, base_name)
    write_metrics(place.name, figures_of(metrics), metrics)
    write_text(place.plot, plot)
    forget(run)
    return metrics, digest


def switched_off(place: Place, why: str) -> str:
    """Leave what a stage leaves that trains nothing; returns the sentence to end with."""
    write_metrics(place.name, {}, {"steps": 0})
    write_text(place.plot, curves([], place.columns))
    return write_nothing(place.weights, why)
