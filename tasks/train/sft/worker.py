"""One process of a supervised fine-tuning; see tasks/train/run/worker.py for what it is started with and leaves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.core.records import Example, read_own_jsonl
from tasks.train.run.methods import prepared
from tasks.train.run.worker import (
    common_arguments,
    evaluation,
    finish,
    load_model,
    load_tokenizer,
    on_cpu,
    run_worker,
)
from tasks.train.sft.stage import SftJob
from tasks.train.tuning.batches import IGNORED, count_steps, encode_rows

if TYPE_CHECKING:
    from tasks.train.tuning.trainer import PlannedTrainer

CURVES = (("loss", "train"), ("eval_loss", "validation"))


def train(job: SftJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    from tasks.train.sft.best import put_best

    trainer = build_trainer(job, training_arguments(job, run, checkpoint))
    trainer.train(resume_from_checkpoint=checkpoint)
    kept = put_best(trainer, run) if job.keep_best else trainer.state.global_step
    finish(trainer, run, CURVES, kept_step=kept, **counts(job, trainer))


def training_arguments(job: SftJob, run: Path, checkpoint: str | None) -> Any:
    """TRL's configuration of a job."""
    from tasks.train.tuning.trainer import planned_arguments

    examples = len(read_own_jsonl(job.data["train"], Example))
    steps = count_steps(examples, job.settings.batch_size, job.processes)
    every = -(-steps // job.settings.gradient_accumulation)
    validate = job.data["validation"].stat().st_size > 0
    return planned_arguments(common_arguments(job, run) | evaluation(every, validate, checkpoint))


def build_trainer(job: SftJob, arguments: Any) -> PlannedTrainer:
    """Tokenizer, model, data and callbacks put together."""
    from datasets import Dataset

    from tasks.train.run.callbacks import StopAtNan, common_callbacks, unprinted
    from tasks.train.sft.best import KeepBest
    from tasks.train.sft.low_rank import use_fewer_passes
    from tasks.train.sft.one_row import in_one_row, use_one_row_attention
    from tasks.train.tuning.trainer import PlannedTrainer

    tokenizer, settings = load_tokenizer(job.base_model), job.settings
    train_rows, validation_rows = (
        encode_rows(tokenizer, job.system, read_own_jsonl(job.data[name], Example), settings.max_tokens)
        for name in ("train", "validation")
    )
    model = prepared(load_model(job), job)
    if on_cpu():
        use_fewer_passes(model)
    if settings.packing:
        use_one_row_attention(model, settings.max_tokens)
    tokens = sum(len(row["input_ids"]) for row in train_rows) / arguments.eval_steps
    trainer = PlannedTrainer(
        model=model,
        args=arguments,
        data_collator=in_one_row if settings.packing else None,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(validation_rows) if validation_rows else None,
        processing_class=tokenizer,
        callbacks=[
            StopAtNan(job.stage),
            *common_callbacks(job, CURVES, tokens),
            *([KeepBest(Path(arguments.output_dir))] if job.keep_best else []),
        ],
    )
    return unprinted(trainer)


def counts(job: SftJob, trainer: PlannedTrainer) -> dict[str, int]:
    """Examples, and tokens over all epochs."""
    labels, epochs = trainer.train_dataset["labels"], job.settings.epochs
    return {
        "examples": len(labels),
        "tokens": sum(map(len, labels)) * epochs,
        "answer_tokens": sum(label != IGNORED for row in labels for label in row) * epochs,
    }


if __name__ == "__main__":
    run_worker(SftJob, train)
