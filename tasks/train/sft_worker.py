"""One process of a supervised fine-tuning, started by `accelerate launch`; tasks.train.sft owns all of them.

    python -m tasks.train.sft_worker JOB_FILE RUN_FOLDER [CHECKPOINT]

Why a module of its own: it is the only one of the stage that imports torch. It leaves RUN_FOLDER/final with the
adapter and what was measured; the manifest comes last. With MLFLOW_RUN_ID in the environment the curves go to that
MLflow run while it trains.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import FlywheelError
from tasks.files import write_json
from tasks.records import Example, read_own_jsonl
from tasks.train.batches import IGNORED, count_steps, encode_rows
from tasks.train.checkpoints import FINAL, mark_complete
from tasks.train.job import SftJob, read_job
from tasks.train.launch import die_with_launcher

if TYPE_CHECKING:
    from tasks.train.trainer import PlannedTrainer


class AdapterMismatch(FlywheelError):
    """The adapter to go on from has another shape than the settings ask for."""


class RanksDisagree(FlywheelError):
    """The processes ended with different weights, so none of them can be trusted."""


def main() -> None:
    """Run one process; errors meant for a person come without a traceback."""
    die_with_launcher()
    job, run = read_job(Path(sys.argv[1])), Path(sys.argv[2])
    try:
        train(job, run, sys.argv[3] if len(sys.argv) > 3 else None)
    except FlywheelError as error:
        sys.exit(f"sft: {error}")


def train(job: SftJob, run: Path, checkpoint: str | None) -> None:
    """Train from the start or from a checkpoint, and write RUN/final."""
    _quiet()
    arguments = training_arguments(job, run, checkpoint)
    trainer = build_trainer(job, arguments)
    trainer.train(resume_from_checkpoint=checkpoint)
    check_agreement(trainer)
    save_final(job, trainer, run / FINAL)


def _quiet() -> None:
    """Drop bars and notes, leave errors; and start without compiling what two processes do not need."""
    import warnings

    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)  # what the pinned libraries say of each other
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    import deepspeed.ops

    # On CPU DeepSpeed would compile a shared-memory all-reduce (a minute, and segments that outlive a kill);
    # gloo takes milliseconds for an adapter's gradients.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def training_arguments(job: SftJob, run: Path, checkpoint: str | None) -> Any:
    """TRL's configuration of a job. Losses are logged at every step, so that a resumed run logs the same ones."""
    from trl import SFTConfig

    settings = job.settings
    cpu = os.environ.get("DS_ACCELERATOR") == "cpu"
    examples = len(read_own_jsonl(job.train, Example))
    steps = count_steps(examples, settings.batch_size, job.processes)
    validate = job.validation.stat().st_size > 0
    os.environ.setdefault("MLFLOW_MAX_LOG_PARAMS", "0")  # the run's owner logs them; a resumed run may not repeat them
    return SFTConfig(
        output_dir=str(run),
        seed=job.seed,
        data_seed=job.seed,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=1,  # no padding, and a mean over examples whatever the number of processes
        gradient_accumulation_steps=settings.gradient_accumulation,
        bf16=settings.precision == "bf16",
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_pin_memory=not cpu,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validate else "no",
        eval_steps=-(-steps // settings.gradient_accumulation),
        eval_on_start=validate and checkpoint is None,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=2,
        report_to=["mlflow"] if os.environ.get("MLFLOW_RUN_ID") else [],
        disable_tqdm=True,
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and job.processes > 1 else None,
    )


def build_trainer(job: SftJob, arguments: Any) -> PlannedTrainer:
    """Tokenizer, model, data and callbacks put together."""
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback

    from tasks.train.trainer import MarkCheckpoints, PlannedTrainer, Progress, StopAtNan

    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    train_rows, validation_rows = (
        encode_rows(tokenizer, job.system, read_own_jsonl(path, Example), job.settings.max_tokens)
        for path in (job.train, job.validation)
    )
    tokens = sum(len(row["input_ids"]) for row in train_rows)
    trainer = PlannedTrainer(
        model=continued(job, load_model(job, arguments)) if job.start else load_model(job, arguments),
        args=arguments,
        train_dataset=Dataset.from_list(train_rows),
        eval_dataset=Dataset.from_list(validation_rows) if validation_rows else None,
        processing_class=tokenizer,
        peft_config=None if job.start else adapter_config(job),
        callbacks=[StopAtNan(), MarkCheckpoints(), Progress(tokens / arguments.eval_steps)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def load_model(job: SftJob, arguments: Any) -> Any:
    """The base model in the precision of the job.

    On CPU with plain attention: for sequences of a hundred tokens its backward pass in bf16 is several times faster
    than the fused one's.
    """
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        job.base_model,
        dtype=torch.bfloat16 if job.settings.precision == "bf16" else torch.float32,
        attn_implementation="eager" if arguments.use_cpu else "sdpa",
    )


def continued(job: SftJob, model: Any) -> Any:
    """The model with the adapter it goes on from, to be trained further.

    Raises:
        AdapterMismatch: that adapter's rank, scale or places are not those of `sft.lora`.
    """
    from peft import PeftModel

    model = PeftModel.from_pretrained(model, job.start, is_trainable=True)
    lora, found = job.settings.lora, model.peft_config["default"]
    wanted = (lora.rank, lora.alpha, set(lora.target_modules))
    if (found.r, found.lora_alpha, set(found.target_modules)) != wanted:
        raise AdapterMismatch(
            f"{job.start} has rank {found.r}, alpha {found.lora_alpha} on {', '.join(sorted(found.target_modules))}; "
            "sft.lora asks for others. Keep those, or set feedback.start: base"
        )
    return model


def adapter_config(job: SftJob) -> Any:
    """What is trained: `sft.method`. Another method is another branch here and a section in the settings."""
    from peft import LoraConfig

    lora = job.settings.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )


def check_agreement(trainer: PlannedTrainer) -> None:
    """Compare the trained weights of all processes.

    Raises:
        RanksDisagree: they are not equal to the last bit.
    """
    import torch.distributed as dist

    if trainer.args.world_size == 1:
        return
    seen: list[str] = [""] * trainer.args.world_size
    dist.all_gather_object(seen, _weights_digest(trainer.model))
    if len(set(seen)) > 1:
        raise RanksDisagree(f"the processes ended with different weights: {[digest[:12] for digest in seen]}")


def _weights_digest(model: Any) -> str:
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_final(job: SftJob, trainer: PlannedTrainer, folder: Path) -> None:
    """Write adapter and result; the manifest, written last, says that both are whole."""
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        write_json(folder / "result.json", result_of(job, trainer))
        mark_complete(folder)
    if trainer.args.world_size > 1:
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()


def result_of(job: SftJob, trainer: PlannedTrainer) -> dict[str, Any]:
    """Losses by step and what was counted; nothing that depends on time or machine."""
    history = []
    for entry in trainer.state.log_history:
        for key, split in (("loss", "train"), ("eval_loss", "validation")):
            if key in entry:
                history.append([entry["step"], split, entry[key]])
    labels = trainer.train_dataset["labels"]
    return {
        "history": history,
        "steps": trainer.state.global_step,
        "examples": len(labels),
        "tokens": sum(map(len, labels)) * job.settings.epochs,
        "answer_tokens": sum(row_label != IGNORED for row in labels for row_label in row) * job.settings.epochs,
        "trainable_parameters": _parameters(trainer.model, trainable=True),
        "parameters": _parameters(trainer.model, trainable=False),
    }


def _parameters(model: Any, trainable: bool) -> int:
    """Number of parameters; ZeRO-3 keeps the true size of a shared-out one in `ds_numel`."""
    chosen = [parameter for parameter in model.parameters() if parameter.requires_grad or not trainable]
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in chosen)


if __name__ == "__main__":
    main()
