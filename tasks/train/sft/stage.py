"""Stage sft: supervised fine-tuning on the mixed examples, with loss on the answers only.

The stage itself imports no torch: it describes the job, lets `accelerate launch` run the worker processes under
DeepSpeed as infra/accelerate/<sft.launch>.yaml says, and writes the outputs when they are done. A run that was killed,
however hard, goes on from its last complete checkpoint when the stage is started again, to the same weights.
It begins from a champion's adapter, from what pretraining left, or from the base model (tasks/train/run/handover.py).
Limits: equal bytes are promised on one kind of processor.
"""

from __future__ import annotations

from typing import Any

from tasks.core import layout
from tasks.core.domain import Domain, load_domain
from tasks.core.files import write_json, write_text
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.core.start import goes_on
from tasks.core.training_params import SftParams
from tasks.train.entry.execute import execute, run_folder
from tasks.train.run.checkpoints import forget
from tasks.train.run.handover import before_sft, write_trained
from tasks.train.run.job import launch_files, read_result
from tasks.train.run.launch import CONFIGS, read_launch
from tasks.train.run.precision import resolve_precision
from tasks.train.sft.job import SftJob

METRICS = layout.METRICS / "sft.json"
LOSS_PLOT = layout.PLOTS / "sft_loss.csv"


def describe(params: Params, domain: Domain) -> SftJob:
    """The job that the settings ask for; the manifests of what it begins from are checked on the way."""
    launch = read_launch(params.sft.launch)
    begin = before_sft()
    data = {name: layout.MIX / f"{name}.jsonl" for name in ("train", "validation")}
    settings = params.sft.model_copy(update={"precision": resolve_precision(params.sft.precision, launch)})
    if goes_on():
        rate = settings.learning_rate * params.feedback.learning_rate_share
        settings = settings.model_copy(update={"learning_rate": rate})
    else:
        settings = with_enough_steps(settings, data["train"].read_bytes().count(b"\n"), launch["num_processes"])
    return SftJob(
        stage="sft",
        base_model=begin.base,
        base_digest=begin.base_digest,
        data=data,
        system=domain.system_text(),
        seed=params.seed,
        processes=launch["num_processes"],
        settings=settings,
        method=params.methods.of(params.sft.method).model_dump(),
        plot=LOSS_PLOT,
        keep_best=not goes_on(),  # a night's validation examples are replayed ones: they never gain by corrections
        start=begin.adapter,
        start_digest=begin.adapter_digest,
        launch_files=launch_files(params.sft.launch, launch, CONFIGS),
    )


def with_enough_steps(settings: SftParams, examples: int, processes: int) -> SftParams:
    """The settings with as many epochs as `min_steps` asks for, and no fewer than they name."""
    steps = max(1, -(-examples // (settings.batch_size * processes * settings.gradient_accumulation)))  # an epoch's
    return settings.model_copy(update={"epochs": max(settings.epochs, -(-settings.min_steps // steps))})


def metrics_of(result: dict[str, Any], epochs: int) -> dict[str, Any]:
    """The stage's metrics: `train_loss` is the mean over the steps of the last epoch, all losses in nats a token.

    `validation_loss` is that of the weights that were kept, those of step `kept_step`.
    """
    losses = {split: [row[2] for row in result["history"] if row[1] == split] for split in ("train", "validation")}
    last_epoch = losses["train"][-(len(losses["train"]) // epochs) :]
    metrics = {key: value for key, value in result.items() if key != "history"}
    kept = [metrics["kept_step"], "validation"]
    metrics["epochs"] = epochs
    metrics["train_loss"] = sum(last_epoch) / len(last_epoch)
    if losses["validation"]:
        metrics["validation_loss_before"] = losses["validation"][0]
        metrics["validation_loss"] = next(row[2] for row in result["history"] if row[:2] == kept)
    return metrics


def plot_of(result: dict[str, Any]) -> str:
    """The loss curve as CSV: step, split, loss."""
    return "step,split,loss\n" + "".join(f"{step},{split},{loss}\n" for step, split, loss in result["history"])


def stage() -> str:
    """Train, then put weights, metrics and curve in their places; only then are the checkpoints removed."""
    params = load_params()
    domain = load_domain(params.domain)
    job = describe(params, domain)
    run = run_folder(job)
    done = execute(job, run)
    result = read_result(done)
    metrics = metrics_of(result, job.settings.epochs)
    digest = write_trained(done, layout.SFT, domain.base_model.name)
    write_json(METRICS, metrics)
    write_text(LOSS_PLOT, plot_of(result))
    forget(run)
    return f"{metrics['steps']} steps, train loss {metrics['train_loss']:.4f}, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("sft", stage)


if __name__ == "__main__":
    main()
