"""Stage sft: supervised fine-tuning on the mixed examples, with loss on the answers only. No torch here.

It describes a job, has worker processes carry it out under DeepSpeed, and goes on from the last complete checkpoint
after a kill, to the same weights. Limits: equal bytes are promised on one kind of processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from tasks.core import layout
from tasks.core.domain import Domain
from tasks.core.params import Params
from tasks.core.pointers import goes_on
from tasks.core.training_params import SftParams
from tasks.train.entry.training import TrainingStage, common_fields, counted
from tasks.train.run.handover import before_sft
from tasks.train.run.job import TrainingJob


class SftJob(TrainingJob):
    """`data` has train and validation: examples as JSON lines."""

    code: ClassVar[tuple[str, ...]] = ("text", "train/run", "train/tuning", "train/sft")
    worker: ClassVar[str] = "tasks.train.sft.worker"
    plot: ClassVar[Path] = layout.PLOTS / "sft_loss.csv"

    settings: SftParams
    keep_best: bool = False  # the weights of the lowest validation loss, not the last


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
    return SftJob(data=data, keep_best=not goes_on(), **common)


def with_enough_steps(settings: SftParams, examples: int, processes: int) -> SftParams:
    """The settings with as many epochs as `min_steps` asks for, and no fewer than they name."""
    steps = max(1, -(-examples // (settings.batch_size * processes * settings.gradient_accumulation)))  # an epoch's
    return settings.model_copy(update={"epochs": max(settings.epochs, -(-settings.min_steps // steps))})


def metrics_of(result: dict[str, Any], epochs: int) -> dict[str, Any]:
    """In nats a token: `train_loss` over the last epoch, `validation_loss` of the kept weights (`kept_step`)."""
    train, validation = ([row for row in result["history"] if row[1] == split] for split in ("train", "validation"))
    last_epoch = [row[2] for row in train[-(len(train) // epochs) :]]
    metrics = {**counted(result), "epochs": epochs, "train_loss": sum(last_epoch) / len(last_epoch)}
    if validation:
        metrics["validation_loss_before"] = validation[0][2]
        metrics["validation_loss"] = next(row[2] for row in validation if row[0] == metrics["kept_step"])
    return metrics


STAGE = TrainingStage(
    "sft",
    layout.SFT,
    SftJob,
    describe,
    metrics=lambda result, _, job: metrics_of(result, job.settings.epochs),
    summary=lambda metrics, _: f"{metrics['steps']} steps, train loss {metrics['train_loss']:.4f}",
)

if __name__ == "__main__":
    STAGE.main()
