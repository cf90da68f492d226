"""One process of continued pretraining, in which every token is learnt; see tasks/train/run/worker.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.records import Document, Example
from tasks.core.tables import read_records
from tasks.train.pretrain.rows import Ids, Rows, build_rows, document_ids, example_ids
from tasks.train.pretrain.stage import PretrainJob
from tasks.train.run.methods import prepared
from tasks.train.run.worker import common_arguments, evaluation, finish, load_model, load_tokenizer, run_worker
from tasks.train.tuning.batches import count_steps

CURVES = (("loss", "train"), ("eval_domain_loss", "domain"), ("eval_general_loss", "general"))


def train(job: PretrainJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    rows, epochs = read_rows(job), job.settings.epochs
    trainer = build_trainer(job, rows, run, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    counts = {
        "tokens": rows.domain_tokens + rows.general_tokens,
        "domain_tokens": rows.domain_tokens,
        "general_tokens": rows.general_tokens,
    }
    seen = {name: count * epochs for name, count in counts.items()}
    finish(trainer, run, CURVES, rows=len(rows.train), **seen)


def read_rows(job: PretrainJob) -> Rows:
    """The job's texts as rows of tokens; every process makes the same ones."""
    tokenizer, settings = load_tokenizer(job.base_model), job.settings
    documents = [document_ids(tokenizer, document) for document in read_records(job.data["documents"], Document)]
    general = [example_ids(tokenizer, example) for example in read_records(job.data["general"], Example)]
    return build_rows(documents, general, settings.max_tokens, settings.general_ratio, job.seed)


def build_trainer(job: PretrainJob, rows: Rows, run: Path, checkpoint: str | None) -> Any:
    """Tokenizer, model, data and callbacks put together."""
    from tasks.train.run.callbacks import StopAtNan, common_callbacks, unprinted
    from tasks.train.tuning.trainer import PlannedTrainer, planned_arguments

    held_out = {name: dataset(kept) for name, kept in (("domain", rows.domain), ("general", rows.general)) if kept}
    steps = count_steps(len(rows.train), job.settings.batch_size, job.processes)
    every = -(-steps // job.settings.gradient_accumulation)
    tokens = (rows.domain_tokens + rows.general_tokens) / every
    # Before the model is loaded: they tell transformers of a partition (ZeRO-3).
    arguments = planned_arguments(common_arguments(job, run) | evaluation(every, bool(held_out), checkpoint))
    trainer = PlannedTrainer(
        model=prepared(load_model(job), job),
        args=arguments,
        train_dataset=dataset(rows.train),
        eval_dataset=held_out or None,
        processing_class=load_tokenizer(job.base_model),
        callbacks=[StopAtNan(job.stage), *common_callbacks(job, CURVES, tokens)],
    )
    return unprinted(trainer)


def dataset(rows: list[Ids]) -> Any:
    """Rows as the trainer reads them: each token is also a label."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": row, "labels": row} for row in rows])


if __name__ == "__main__":
    run_worker(PretrainJob, train)
