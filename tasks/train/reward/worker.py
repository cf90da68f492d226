"""One process of a reward model's training; see tasks/train/run/worker.py for what it is started with and leaves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tasks.core.records import Preference, read_own_jsonl
from tasks.train.preference.rows import Group, encode_groups, steps_of_epoch
from tasks.train.reward.stage import RewardJob, losses
from tasks.train.run.methods import prepared
from tasks.train.run.worker import common_arguments, evaluation, finish, load_options, load_tokenizer, run_worker

CURVES = (
    ("loss", "train loss"),
    ("accuracy", "train accuracy"),
    ("eval_loss", "validation loss"),
    ("eval_accuracy", "validation accuracy"),
)


def train(job: RewardJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    tokenizer = load_tokenizer(job.base_model)
    groups, held_out = (
        encode_groups(tokenizer, job.system, read_own_jsonl(job.data[name], Preference), job.settings.max_tokens)
        for name in ("train", "validation")
    )
    trainer = build_trainer(job, run, checkpoint, tokenizer, groups, held_out)
    trainer.train(resume_from_checkpoint=checkpoint)
    margins = trainer.held_out_margins() if held_out else []
    finish(
        trainer,
        run,
        CURVES,
        prompts=len(groups),
        pairs=sum(len(group.pairs) for group in groups),
        tokens=sum(len(ids) for group in groups for ids in group.sequences) * job.settings.epochs,
        held_out=[_judged(group, seen) for group, seen in zip(held_out, margins, strict=True)],
    )


def _judged(group: Group, margins: list[float]) -> list[list[Any]]:
    """For each pair of a prompt: what was compared, the margin, and how many tokens longer the better answer is."""
    return [
        [kind, margin, len(group.answers[better]) - len(group.answers[worse])]
        for kind, margin, (better, worse) in zip(group.kinds, margins, group.pairs, strict=True)
    ]


def build_trainer(
    job: RewardJob, run: Path, checkpoint: str | None, tokenizer: Any, groups: list[Group], held_out: list[Group]
) -> Any:
    """Model, data and callbacks put together; the new score head is the same in every process, by the job's seed."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl import RewardConfig

    from tasks.train.reward.ranking import RankingTrainer, collate, rows_of
    from tasks.train.run.callbacks import StopAtNan, common_callbacks, unprinted

    arguments = RewardConfig(
        **common_arguments(job, run),
        **evaluation(steps_of_epoch(len(groups), job.settings, job.processes), bool(held_out), checkpoint),
        max_length=None,
        remove_unused_columns=False,
        disable_dropout=True,
    )
    tokens = sum(len(ids) for group in groups for ids in group.sequences) / len(groups)
    a_step = tokens * job.settings.batch_size * job.processes
    set_seed(job.seed)
    scorer = AutoModelForSequenceClassification.from_pretrained(
        job.base_model, num_labels=1, pad_token_id=tokenizer.pad_token_id, **load_options(job)
    )
    trainer = RankingTrainer(
        model=prepared(scorer, job, "SEQ_CLS"),
        args=arguments,
        data_collator=partial(collate, pad=tokenizer.pad_token_id),
        train_dataset=Dataset.from_list(rows_of(groups)),
        eval_dataset=Dataset.from_list(rows_of(held_out)) if held_out else None,
        processing_class=tokenizer,
        callbacks=[StopAtNan(job.stage), *common_callbacks(job, CURVES, a_step, losses)],
    )
    return unprinted(trainer)


if __name__ == "__main__":
    run_worker(RewardJob, train)
