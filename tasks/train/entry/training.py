"""What every training stage does: fill in its job, carry it out, and put what it gave in its place."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core.domain import Domain, load_domain
from tasks.core.files import write_text
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage, write_metrics
from tasks.core.training_params import TrainingParams
from tasks.train.entry.execute import execute, run_folder
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import Weights, write_nothing, write_trained
from tasks.train.run.hardware import resolve_precision
from tasks.train.run.job import TrainingJob, curves, launch_files, read_result
from tasks.train.run.launch import CONFIGS, read_launch

Result = dict[str, Any]  # what the workers noted: `history`, rows of step, curve and value, and counts
Metrics = dict[str, Any]


LOSSES = ("validation_loss", "domain_loss", "train_loss")  # of a stage, the first that there is


def counted(result: Result) -> Metrics:
    """What of a result is no curve."""
    return {key: value for key, value in result.items() if key != "history"}


def figures_of(metrics: Metrics) -> dict[str, float]:
    """What releases are compared by: the held-out `loss` before and after, a reward model's `accuracy`, a `reward`."""
    loss = next((name for name in LOSSES if name in metrics), "")
    found = {"loss_before": metrics.get(f"{loss}_before"), "loss": metrics.get(loss)}
    found |= {name: metrics.get(name) for name in ("reward_before", "reward")}
    found["accuracy"] = metrics.get("held_out", {}).get("accuracy")
    return {name: value for name, value in found.items() if value is not None}


def _always(_: Params) -> str:
    return ""


def _history(result: Result) -> Iterable[Iterable[Any]]:
    rows: list[list[Any]] = result["history"]
    return rows


@dataclass(frozen=True)
class TrainingStage:
    """What differs between the stages that train.

    name: also that of its section in params.yaml and of its metrics.
    weights, kind: where it leaves its weights, and its jobs' class, which knows its plot.
    describe: the job that the settings ask for.
    metrics: of what the workers noted.
    summary: the metrics as the sentence to end with.
    off: why nothing is trained, or "".
    plotted: the rows of the plot.
    """

    name: str
    weights: Path
    kind: type[TrainingJob]
    describe: Callable[[Params, Domain], TrainingJob]
    metrics: Callable[[Result, Params, TrainingJob], Metrics]
    summary: Callable[[Metrics, Params], str]
    off: Callable[[Params], str] = _always
    plotted: Callable[[Result], Iterable[Iterable[Any]]] = _history

    def run(self) -> str:
        """Train, or say why not; then put weights, metrics and curves in their places, and only then forget the run."""
        params = load_params()
        if why := self.off(params):
            self._write({"steps": 0}, [])
            return write_nothing(self.weights, why)
        domain = load_domain(params.domain)
        job = self.describe(params, domain)
        run = run_folder(job)
        done = execute(job, run)
        result = read_result(done)
        metrics = self.metrics(result, params, job)
        digest = write_trained(done, self.weights, domain.base_model.name)
        self._write(metrics, self.plotted(result))
        forget(run)
        return f"{self.summary(metrics, params)}, digest {digest[:12]}"

    def _write(self, metrics: Metrics, rows: Iterable[Iterable[Any]]) -> None:
        write_metrics(self.name, figures_of(metrics), metrics)
        write_text(self.kind.plot, curves(rows, self.kind.columns))

    def main(self) -> None:
        """Run it as the process's main program."""
        run_stage(self.name, self.run)


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
