"""One process of continued pretraining, started by `accelerate launch`; tasks.train.pretrain.stage owns all of them.

Every token is learnt, of documents and of general text alike. See tasks/train/run/worker.py for what it is started with
and what it leaves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.records import Document, Example
from tasks.core.tables import read_records
from tasks.train.pretrain.job import PretrainJob
from tasks.train.pretrain.rows import Ids, Rows, build_rows, document_ids, example_ids
from tasks.train.pretrain.stage import PLACE
from tasks.train.run.job import curves
from tasks.train.run.methods import prepared
from tasks.train.run.worker import (
    check_agreement,
    common_arguments,
    history_of,
    load_model,
    load_tokenizer,
    result_of,
    run_worker,
    save_final,
)
from tasks.train.tuning.batches import count_steps

CURVES = (("loss", "train"), ("eval_domain_loss", "domain"), ("eval_general_loss", "general"))


def train(job: PretrainJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    rows = read_rows(job)
    trainer = build_trainer(job, rows, training_arguments(job, rows, run, checkpoint))
    trainer.train(resume_from_checkpoint=checkpoint)
    check_agreement(trainer)
    epochs = job.settings.epochs
    counted = {
        "rows": len(rows.train),
        "tokens": (rows.domain_tokens + rows.general_tokens) * epochs,
        "domain_tokens": rows.domain_tokens * epochs,
        "general_tokens": rows.general_tokens * epochs,
    }
    save_final(trainer, run, result_of(trainer, CURVES, **counted))


def read_rows(job: PretrainJob) -> Rows:
    """The job's texts as rows of tokens; every process makes the same ones."""
    tokenizer, settings = load_tokenizer(job), job.settings
    documents = [document_ids(tokenizer, document) for document in read_records(job.data["documents"], Document)]
    general = [example_ids(tokenizer, example) for example in read_records(job.data["general"], Example)]
    return build_rows(documents, general, settings.max_tokens, settings.general_ratio, job.seed)


def training_arguments(job: PretrainJob, rows: Rows, run: Path, checkpoint: str | None) -> Any:
    """TRL's configuration of a job."""
    from trl import SFTConfig

    settings = job.settings
    steps = count_steps(len(rows.train), settings.batch_size, job.processes)
    validate = bool(rows.domain or rows.general)
    return SFTConfig(
        **common_arguments(job, run),
        per_device_eval_batch_size=1,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        eval_strategy="steps" if validate else "no",
        eval_steps=-(-steps // settings.gradient_accumulation),
        eval_on_start=validate and checkpoint is None,
    )


def build_trainer(job: PretrainJob, rows: Rows, arguments: Any) -> Any:
    """Tokenizer, model, data and callbacks put together."""
    from transformers import PrinterCallback

    from tasks.train.run.callbacks import LivePlot, MarkCheckpoints, Progress, StopAtNan
    from tasks.train.tuning.trainer import PlannedTrainer

    measured = {name: dataset(kept) for name, kept in (("domain", rows.domain), ("general", rows.general)) if kept}
    tokens = rows.domain_tokens + rows.general_tokens
    trainer = PlannedTrainer(
        model=prepared(load_model(job), job),
        args=arguments,
        train_dataset=dataset(rows.train),
        eval_dataset=measured or None,
        processing_class=load_tokenizer(job),
        callbacks=[
            StopAtNan(job.stage),
            MarkCheckpoints(),
            Progress(job.stage, tokens / arguments.eval_steps),
            LivePlot(PLACE.plot, lambda log: curves(history_of(log, CURVES), PLACE.columns)),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def dataset(rows: list[Ids]) -> Any:
    """Rows as the trainer reads them: each token is also a label."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": row, "labels": row} for row in rows])


if __name__ == "__main__":
    run_worker(PretrainJob, train)
