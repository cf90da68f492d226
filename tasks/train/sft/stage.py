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
from tasks.core.params import Params, load_params
from tasks.core.stage import run_stage
from tasks.core.start import goes_on
from tasks.core.training_params import SftParams
from tasks.train.entry.training import Place, common_fields, train
from tasks.train.run.handover import before_sft
from tasks.train.run.job import curves
from tasks.train.sft.job import SftJob

PLACE = Place(layout.SFT, "sft", layout.PLOTS / "sft_loss.csv")


def describe(params: Params, domain: Domain) -> SftJob:
    """The job that the settings ask for; the manifests of what it begins from are checked on the way."""
    data = {name: layout.MIX / f"{name}.jsonl" for name in ("train", "validation")}
    common = common_fields("sft", params.sft, params, domain, before_sft())
    if goes_on():
        rate = params.sft.learning_rate * params.feedback.learning_rate_share
        common["settings"] = common["settings"].model_copy(update={"learning_rate": rate})
    else:
        examples = data["train"].read_bytes().count(b"\n")
        common["settings"] = with_enough_steps(common["settings"], examples, common["processes"])
    # A night keeps its last weights: its validation examples are replayed ones, which never gain by corrections.
    return SftJob(data=data, plot=PLACE.plot, keep_best=not goes_on(), **common)


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


def stage() -> str:
    """Train as the settings ask."""
    params = load_params()
    domain = load_domain(params.domain)
    job = describe(params, domain)
    metrics, digest = train(
        job,
        PLACE,
        domain.base_model.name,
        lambda result: (metrics_of(result, job.settings.epochs), curves(result["history"], PLACE.columns)),
    )
    return f"{metrics['steps']} steps, train loss {metrics['train_loss']:.4f}, digest {digest[:12]}"


def main() -> None:
    """Run the stage."""
    run_stage("sft", stage)


if __name__ == "__main__":
    main()
