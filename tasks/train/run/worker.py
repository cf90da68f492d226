"""What the worker processes of every training stage have in common: how they begin, load, agree and end.

Started by `accelerate launch` as `python -m MODULE JOB_FILE RUN_FOLDER [CHECKPOINT]`, one for each process; leaves
RUN_FOLDER/final, the manifest last. With MLFLOW_RUN_ID in the environment the curves go to that run.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.files import write_json, write_text
from tasks.core.stage import hush
from tasks.train.run import heartbeat
from tasks.train.run.checkpoints import FINAL, REFUSED, mark_complete
from tasks.train.run.export import make_plain
from tasks.train.run.job import Job, TrainingJob, read_job
from tasks.train.run.methods import parameter_counts, quantisation_of

Curve = tuple[str, str]  # the trainer's name of a figure, ours


class RanksDisagree(FlywheelError):
    """The processes ended with different weights, so none of them can be trusted."""


def run_worker(kind: type[Job], train: Callable[[Job, Path, str | None], None]) -> None:
    """Run one process: `train(job, run folder, checkpoint)`. Errors meant for a person come without a traceback."""
    job, run = read_job(Path(sys.argv[1]), kind), Path(sys.argv[2])
    last_beat = heartbeat.begin(run, int(os.environ.get("RANK", "0")))
    quiet()
    try:
        train(job, run, sys.argv[3] if len(sys.argv) > 3 else None)
    except FlywheelError as error:
        with suppress(OSError):  # the disk may be what is wrong
            write_text(run / REFUSED, f"{error}\n")
        sys.exit(f"{job.stage}: {error}")
    finally:
        last_beat()


def quiet() -> None:
    """Drop bars and notes, leave errors; and start without compiling what two processes do not need."""
    import warnings

    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)  # what the pinned libraries say of each other
    warnings.filterwarnings("ignore", message=r"barrier\(\): using the device")  # torch, at each of DeepSpeed's on GPUs
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hush()
    import deepspeed.ops

    # On CPU DeepSpeed would compile a shared-memory all-reduce (a minute, and segments that outlive a kill);
    # gloo takes milliseconds for an adapter's gradients.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def on_cpu() -> bool:
    """Whether this process was launched to compute on processors."""
    return os.environ.get("DS_ACCELERATOR") == "cpu"


def common_arguments(job: TrainingJob, run: Path) -> dict[str, Any]:
    """What every trainer's configuration is given. Every step is logged, so that a resumed run logs the same losses."""
    settings = job.settings
    os.environ.setdefault("MLFLOW_MAX_LOG_PARAMS", "0")  # the run's owner logs them; a resumed run may not repeat them
    return {
        "output_dir": str(run),
        "seed": job.seed,
        "data_seed": job.seed,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup_ratio,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "bf16": settings.precision == "bf16",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": not on_cpu(),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": settings.save_every,
        "save_total_limit": 2,
        "report_to": ["mlflow"] if os.environ.get("MLFLOW_RUN_ID") else [],
        "disable_tqdm": True,
        "use_cpu": on_cpu(),
        "ddp_backend": "gloo" if on_cpu() and job.processes > 1 else None,
    }


def evaluation(every: int, validate: bool, checkpoint: str | None) -> dict[str, Any]:
    """The arguments for a validation every so many steps, and before the first one of a run that begins."""
    return {
        "eval_strategy": "steps" if validate else "no",
        "eval_steps": every,
        "eval_on_start": validate and checkpoint is None,
    }


def load_tokenizer(folder: Path) -> Any:
    """A model's own tokenizer; code beside it is not run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_options(job: TrainingJob) -> dict[str, Any]:
    """How `from_pretrained` loads the base model; on CPU plain attention, several times faster backward in bf16."""
    import torch

    return {
        "dtype": torch.bfloat16 if job.settings.precision == "bf16" else torch.float32,
        "attn_implementation": "eager" if on_cpu() else "sdpa",
        **quantisation_of(job),
    }


def load_model(job: TrainingJob) -> Any:
    """The base model as a language model, in the precision of the job."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job.base_model, **load_options(job))


def check_agreement(trainer: Any) -> None:
    """Compare the trained weights of all processes. Raises RanksDisagree: they are not equal to the last bit."""
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


def shares(count: int, rank: int, world: int) -> list[int]:
    """Rows of a process, as many in each (some come twice): under ZeRO-3 all must pass the model equally often."""
    return [(rank + turn * world) % count for turn in range(-(-count // world))]


def save_final(trainer: Any, run: Path, result: Mapping[str, Any]) -> None:
    """Write weights and result to RUN/final; the manifest, written last, says that both are whole."""
    folder = run / FINAL
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        make_plain(trainer.model, folder)
        write_json(folder / "result.json", dict(result))
        mark_complete(folder)
    import torch.distributed as dist

    if dist.is_initialized():  # DeepSpeed's group, also of one process
        dist.barrier()
        dist.destroy_process_group()


def history_of(log_history: Iterable[Mapping[str, Any]], curves: Iterable[Curve]) -> list[list[Any]]:
    """[step, our name, value] of the wanted figures."""
    wanted = tuple(curves)
    return [[entry["step"], name, entry[key]] for entry in log_history for key, name in wanted if key in entry]


def result_of(trainer: Any, curves: Iterable[Curve], **counts: Any) -> dict[str, Any]:
    """Figures by step, [step, our name, value], and what was counted; nothing that depends on time or machine."""
    history = history_of(trainer.state.log_history, curves)
    return {"history": history, "steps": trainer.state.global_step, **counts, **parameter_counts(trainer.model)}


def finish(trainer: Any, run: Path, curves: Iterable[Curve], **counts: Any) -> None:
    """Compare what the processes have trained, and leave it in RUN/final. Raises RanksDisagree: they differ."""
    check_agreement(trainer)
    save_final(trainer, run, result_of(trainer, curves, **counts))
