"""One process of a supervised fine-tuning, started by `accelerate launch`; tasks.train.sft.stage owns all of them.

See tasks/train/run/worker.py for what it is started with and what it leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.records import Example, read_own_jsonl
from tasks.train.run.job import curves
from tasks.train.run.methods import prepared
from tasks.train.run.worker import (
    check_agreement,
    common_arguments,
    history_of,
    load_model,
    load_tokenizer,
    on_cpu,
    result_of,
    run_worker,
    save_final,
)
from tasks.train.sft.job import SftJob
from tasks.train.sft.stage import PLACE
from tasks.train.tuning.batches import IGNORED, count_steps

if TYPE_CHECKING:
    from tasks.train.tuning.trainer import PlannedTrainer

CURVES = (("loss", "train"), ("eval_loss", "validation"))


def train(job: SftJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    from tasks.train.sft.best import put_best

    trainer = build_trainer(job, training_arguments(job, run, checkpoint))
    trainer.train(resume_from_checkpoint=checkpoint)
    kept = put_best(trainer, run) if job.keep_best else trainer.state.global_step
    check_agreement(trainer)
    save_final(trainer, run, result_of(trainer, CURVES, kept_step=kept, **counts(job, trainer)))


def training_arguments(job: SftJob, run: Path, checkpoint: str | None) -> Any:
    """TRL's configuration of a job."""
    from trl import SFTConfig

    settings = job.settings
    examples = len(read_own_jsonl(job.data["train"], Example))
    steps = count_steps(examples, settings.batch_size, job.processes)
    validate = job.data["validation"].stat().st_size > 0
    return SFTConfig(
        **common_arguments(job, run),
        per_device_eval_batch_size=1,  # no padding, and a mean over examples whatever the number of processes
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="steps" if validate else "no",
        eval_steps=-(-steps // settings.gradient_accumulation),
        eval_on_start=validate and checkpoint is None,
    )


def build_trainer(job: SftJob, arguments: Any) -> PlannedTrainer:
    """Tokenizer, model, data and callbacks put together."""
    from datasets import Dataset
    from transformers import PrinterCallback

    from tasks.train.run.callbacks import MarkCheckpoints, Progress, StopAtNan
    from tasks.train.sft.best import KeepBest
    from tasks.train.sft.low_rank import use_fewer_passes
    from tasks.train.sft.packing import pack, use_packed_attention
    from tasks.train.sft.tokens import cached_rows
    from tasks.train.tuning.trainer import PlannedTrainer

    tokenizer = load_tokenizer(job)
    train_rows, validation_rows = (
        cached_rows(tokenizer, job.base_model, job.data[name], job.system, job.settings.max_tokens)
        for name in ("train", "validation")
    )
    model = prepared(load_model(job), job)
    if on_cpu():
        use_fewer_passes(model)
    if job.settings.packing:
        use_packed_attention(model, job.settings.max_tokens)
    tokens = sum(len(row["input_ids"]) for row in train_rows)
    trainer = PlannedTrainer(
        model=model,
        args=arguments,
        data_collator=pack if job.settings.packing else None,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(validation_rows) if validation_rows else None,
        processing_class=tokenizer,
        callbacks=[
            StopAtNan(job.stage),
            MarkCheckpoints(),
            Progress(job.stage, tokens / arguments.eval_steps),
            *live_plot(job),
            *([KeepBest(Path(arguments.output_dir))] if job.keep_best else []),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def live_plot(job: SftJob) -> list[Any]:
    """Draws the curve while it trains, where the job says."""
    from tasks.train.run.callbacks import LivePlot

    return [LivePlot(job.plot, lambda log: curves(history_of(log, CURVES), PLACE.columns))] if job.plot else []


def counts(job: SftJob, trainer: PlannedTrainer) -> dict[str, int]:
    """Examples, and tokens over all epochs."""
    labels = trainer.train_dataset["labels"]
    return {
        "examples": len(labels),
        "tokens": sum(map(len, labels)) * job.settings.epochs,
        "answer_tokens": sum(row_label != IGNORED for row in labels for row_label in row) * job.settings.epochs,
    }


if __name__ == "__main__":
    run_worker(SftJob, train)
