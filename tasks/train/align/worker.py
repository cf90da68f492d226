"""One process of DPO (Rafailov et al. 2023, arXiv 2305.18290) or KTO (Ethayarajh et al. 2024, arXiv 2402.01306).

Rows come encoded as in SFT and serving, with the log-probabilities of the reference policy: the SFT policy before the
first step; in a night, the first champion of its line. No second model stays in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.records import Preference, read_own_jsonl
from tasks.train.align.stage import PreferenceJob
from tasks.train.preference.rows import KTO_ROWS, dpo_rows, encode_groups, kto_rows, steps_of_epoch
from tasks.train.run.methods import prepared
from tasks.train.run.worker import common_arguments, evaluation, finish, load_model, load_tokenizer, run_worker

CURVES = (
    ("loss", "train loss"),
    ("eval_loss", "validation loss"),
    ("rewards/margins", "train margin"),
    ("eval_rewards/margins", "validation margin"),
    ("rewards/accuracies", "train accuracy"),
    ("eval_rewards/accuracies", "validation accuracy"),
    ("kl", "kl"),
)
Rows = list[dict[str, Any]]


class PreferenceSettings(FlywheelError):
    """The settings do not allow this alignment."""


def train(job: PreferenceJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    tokenizer = load_tokenizer(job.base_model)
    rows, held_out = (rows_of(job, tokenizer, name) for name in ("train", "validation"))
    arguments = training_arguments(job, run, checkpoint, rows, held_out)
    trainer = build_trainer(job, tokenizer, rows, held_out, arguments)
    trainer.train(resume_from_checkpoint=checkpoint)
    finish(trainer, run, CURVES, rows=len(rows), held_out_rows=len(held_out))


def rows_of(job: PreferenceJob, tokenizer: Any, name: str) -> Rows:
    """The encoded rows of train or validation. Raises PreferenceSettings: KTO with less than two rows at a time."""
    settings = job.settings
    groups = encode_groups(tokenizer, job.system, read_own_jsonl(job.data[name], Preference), settings.max_tokens)
    if settings.alignment == "dpo":
        return dpo_rows(groups)
    if settings.batch_size < KTO_ROWS:
        raise PreferenceSettings("kto needs align.batch_size of 2 or more: its KL term compares the rows of a batch")
    return kto_rows(groups, settings.batch_size, job.seed)


def training_arguments(job: PreferenceJob, run: Path, checkpoint: str | None, rows: Rows, held_out: Rows) -> Any:
    """TRL's configuration of a job."""
    from trl import DPOConfig, KTOConfig

    settings = job.settings
    common = {
        **common_arguments(job, run),
        **evaluation(steps_of_epoch(len(rows), settings, job.processes), bool(held_out), checkpoint),
        "max_length": None,  # longer ones are refused before
        "remove_unused_columns": False,
        "disable_dropout": True,
        "precompute_ref_log_probs": True,
        "per_device_eval_batch_size": settings.batch_size,
    }
    if settings.alignment == "dpo":
        return DPOConfig(**common, beta=settings.dpo.beta)
    desirable, undesirable = balanced(rows, settings.kto.desirable_weight, settings.kto.undesirable_weight)
    return KTOConfig(
        **common,
        beta=settings.kto.beta,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
        train_sampling_strategy="sequential",  # the rows are shuffled, and the KL term's partners set
    )


def balanced(rows: Rows, desirable: float, undesirable: float) -> tuple[float, float]:
    """The weights times what makes both kinds of rows count alike: the rarer more (Ethayarajh et al. 2024, eq. 8)."""
    good = sum(row["label"] for row in rows)
    bad = len(rows) - good
    if not good or not bad:
        raise PreferenceSettings("kto needs answers that were chosen and answers that were not")
    return desirable * max(1.0, bad / good), undesirable * max(1.0, good / bad)


def model_beside_reference(job: PreferenceJob, rows: Rows, arguments: Any) -> Any:
    """The policy to train; `rows` get the reference's log-probabilities. One of the two is in memory at a time."""
    from tasks.train.align.trainers import add_reference

    if job.reference_base is not None:
        held = job.model_copy(update={"base_model": job.reference_base, "start": job.reference})
        add_reference(prepared(load_model(held), held), rows, arguments)
    model = prepared(load_model(job), job)
    if job.reference_base is None:
        add_reference(model, rows, arguments)
    return model


def build_trainer(job: PreferenceJob, tokenizer: Any, rows: Rows, held_out: Rows, arguments: Any) -> Any:
    """Model, reference, data and callbacks put together."""
    from datasets import Dataset
    from transformers import set_seed

    from tasks.train.align.trainers import EncodedDpo, EncodedKto
    from tasks.train.run.callbacks import StopAtNan, common_callbacks, unprinted

    set_seed(job.seed)
    model = model_beside_reference(job, rows + held_out, arguments)
    a_step = sum(len(row["prompt_ids"]) for row in rows) / len(rows) * job.settings.batch_size * job.processes
    trainer = (EncodedDpo if job.settings.alignment == "dpo" else EncodedKto)(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(held_out) if held_out else None,
        processing_class=tokenizer,
        callbacks=[StopAtNan(job.stage), *common_callbacks(job, CURVES, a_step)],
    )
    return unprinted(trainer)


if __name__ == "__main__":
    run_worker(PreferenceJob, train)
