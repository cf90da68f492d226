"""What every training stage does: fill in its job, carry it out, and put what it gave in its place.

A run that its worker refused is not tried again; one that lost a process or hangs is, `max_restarts` times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.files import write_json, write_text
from tasks.core.hardware import resolve_precision
from tasks.core.params import Params, load_params
from tasks.core.prices import read_prices
from tasks.core.stage import run_stage, write_metrics
from tasks.core.training_params import TrainingParams
from tasks.core.words import gib, rough
from tasks.train.run.checkpoints import REFUSED, final_of, forget, last_complete
from tasks.train.run.costs import Attempt, write_measured
from tasks.train.run.handover import Weights, write_nothing, write_trained
from tasks.train.run.job import TrainingJob, curves, launch_files, read_result
from tasks.train.run.launch import CONFIGS, LaunchError, launch, read_launch
from tasks.train.sizing.estimate import estimate_of, size

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


class CannotFit(FlywheelError):
    """The training needs more memory or disk than there is."""


def run_folder(job: TrainingJob) -> Path:
    """Where the checkpoints of this very training lie."""
    return layout.CHECKPOINTS / job.stage / job.digest()


def execute(job: TrainingJob, run: Path) -> Path:
    """Run the workers unless this very job has ended before; returns the folder with what it gave.

    Raises CannotFit: not enough memory or disk; nothing was started. LaunchError: a worker failed too often or for
    good.
    """
    restarts = 0
    job.write(run / "job.json")
    if final_of(run) is None and last_complete(run) is None:
        preflight(job)
    while (done := final_of(run)) is None:
        try:
            _attempt(job, run)
        except LaunchError as error:
            if (run / REFUSED).exists() or restarts >= job.settings.max_restarts:
                raise
            restarts += 1
            where = "its last checkpoint" if last_complete(run) else "the beginning"
            print(
                f"{job.stage}: {error}; going on from {where} ({restarts} of {job.settings.max_restarts})", flush=True
            )
            continue
        if final_of(run) is None:
            raise LaunchError("the workers ended without an error and without a result")
    write_measured(job, run, done)
    return done


def _attempt(job: TrainingJob, run: Path) -> None:
    """Launch the workers once, watched, from the last complete checkpoint."""
    (run / REFUSED).unlink(missing_ok=True)
    checkpoint = last_complete(run)
    arguments = [str(run / "job.json"), str(run)] + ([str(checkpoint)] if checkpoint else [])
    attempt = Attempt(run)
    try:
        launch(job.settings.launch, job.worker, arguments, attempt.look)
    finally:
        attempt.end()


def preflight(job: TrainingJob) -> None:
    """Size a job about to start, and keep the prediction. Raises CannotFit: it would not fit, with what would."""
    found = estimate_of(job, size(job, "doubt"), read_prices())
    write_json(layout.MEASURED / f"{job.stage}.predicted.json", found)
    if not found["fits"]:
        instead = "; ".join(found["would_fit"]) or "no change that is known here"
        raise CannotFit(f"{job.stage} cannot run here: {'; '.join(found['reasons'])}. What would fit: {instead}")
    took, memory = found["time"], found["memory"]
    print(
        f"{job.stage}: {found['work']['steps']} steps, about {rough(took['seconds'])} ({took['source']}), "
        f"{gib(memory['needed'])} of {gib(memory['available'])} memory",
        flush=True,
    )


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
    off: Callable[[Params], str] = lambda _: ""
    plotted: Callable[[Result], Iterable[Iterable[Any]]] = lambda result: result["history"]

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
    how = read_launch(settings.launch)
    return {
        "stage": stage,
        "base_model": begin.base,
        "base_digest": begin.base_digest,
        "system": domain.system_text(),
        "seed": params.seed,
        "processes": how["num_processes"],
        "settings": settings.model_copy(update={"precision": resolve_precision(settings.precision, how)}),
        "method": params.methods.of(settings.method).model_dump(),
        "start": begin.adapter,
        "start_digest": begin.adapter_digest,
        "launch_files": launch_files(settings.launch, how, CONFIGS),
    }
