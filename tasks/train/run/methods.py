"""What of a model is trained: each method as peft's configuration, or every weight. Runs in worker processes.

The table of methods is METHODS in tasks/core/training_params.py; what each leaves, tasks/train/run/export.py. Limits:
OSF decomposes each weight when it is loaded, so it needs ZeRO-1 or 2.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.core.errors import FlywheelError
from tasks.core.training_params import ALL_LINEAR, METHODS
from tasks.train.run.shape import read_shape

if TYPE_CHECKING:
    from tasks.train.run.job import TrainingJob

TaskType = Literal["CAUSAL_LM", "SEQ_CLS"]

# What an adapter's configuration must share with the settings for training to go on from it, by peft's type.
SHAPE: dict[str, tuple[str, ...]] = {
    "LORA": ("r", "lora_alpha", "target_modules", "use_rslora", "use_dora"),
    "IA3": ("target_modules", "feedforward_modules"),
    "OSF": ("effective_rank", "target_modules"),
    "PREFIX_TUNING": ("num_virtual_tokens",),
    "PROMPT_TUNING": ("num_virtual_tokens",),
}


class AdapterMismatch(FlywheelError):
    """The adapter to go on from has another shape than the settings ask for."""


class MethodUnavailable(FlywheelError):
    """The method cannot be used on this machine or in this partition."""


def peft_config(job: TrainingJob, task: TaskType) -> Any:
    """peft's configuration of the job's method; None where every weight is trained."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    method = METHODS[job.settings.method]
    if method.peft is None:
        return None
    kind: Any = PEFT_TYPE_TO_CONFIG_MAPPING[method.peft]
    options = method.options(job.method_section(), job.base_model)
    if "target_modules" in options:
        options["target_modules"] = target_modules(job.base_model, options["target_modules"])
    return kind(task_type=task, **options)


def target_modules(model: Path, wanted: str | list[str]) -> list[str]:
    """The linear layers to train, by name. Raises MethodUnavailable: the model has none of one of these names.

    `all-linear` is told from the weights' files and not left to peft, so that sizes are counted of the same layers, the
    adapter's configuration names them, and training goes on from it whichever way they were asked for.
    """
    shape = read_shape(model)
    names, there = shape.names(wanted), shape.names(ALL_LINEAR)
    if missing := [name for name in names if name not in there]:
        raise MethodUnavailable(
            f"target_modules {missing} are no linear layers of this model; write `all-linear`, or some of {there}"
        )
    return names


def quantisation_of(job: TrainingJob) -> dict[str, Any]:
    """What `from_pretrained` needs for four bits; nothing for other methods. Raises MethodUnavailable: not here."""
    if job.settings.method != "qlora":
        return {}
    refuse_partition(job)  # before transformers refuses it in words of its own, and the run is tried again
    on_cpu = os.environ.get("DS_ACCELERATOR") == "cpu"
    if on_cpu and os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        # Its kernels for processors leave some gradients out, and DeepSpeed then stops in the first step.
        raise MethodUnavailable(f"qlora needs a GPU; on a processor set {job.stage}.method: lora")
    if find_spec("bitsandbytes") is None:
        raise MethodUnavailable(f"qlora needs the library bitsandbytes; install it, or set {job.stage}.method: lora")
    import torch
    from transformers import BitsAndBytesConfig

    section: Any = job.method_section()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.quantisation,
        bnb_4bit_use_double_quant=section.double_quantisation,
        bnb_4bit_compute_dtype=torch.bfloat16 if job.settings.precision == "bf16" else torch.float32,
        bnb_4bit_quant_storage=torch.uint8,
    )
    return {
        "quantization_config": config,
        "device_map": {"": "cpu" if on_cpu else int(os.environ.get("LOCAL_RANK", "0"))},
    }


def prepared(model: Any, job: TrainingJob, task: TaskType = "CAUSAL_LM") -> Any:
    """The model with what the method trains, and nothing else, open to training.

    Raises AdapterMismatch: the job goes on from an adapter of another shape; MethodUnavailable: not in this partition.
    """
    from peft import get_peft_model
    from transformers import set_seed

    refuse_partition(job)
    set_seed(job.seed)  # what begins at random begins alike in every process, and again after a kill
    if job.start:
        return continued(model, job, job.start, task)
    config = peft_config(job, task)
    if config is None:
        return all_weights(model, job)
    trained = get_peft_model(model, config)
    if job.settings.method == "pissa":
        from tasks.train.run.export import remember_start

        remember_start(trained)
    return trained


def refuse_partition(job: TrainingJob) -> None:
    """Stop where the weights are shared out before the method could read them whole.

    Raises MethodUnavailable: OSF, QLoRA, or every weight from an adapter on, under ZeRO-3.
    """
    from transformers.integrations import is_deepspeed_zero3_enabled

    method = job.settings.method
    if (METHODS[method].unsplit or (method == "full" and job.start)) and is_deepspeed_zero3_enabled():
        raise MethodUnavailable(
            f"{method} needs whole weights, which ZeRO-3 shares out; "
            f"set {job.stage}.launch to a file of infra/accelerate/ with ZeRO-2"
        )


def all_weights(model: Any, job: TrainingJob) -> Any:
    """The model with every weight open, or all but the embeddings (and a head tied to them)."""
    section: Any = job.method_section()
    model.requires_grad_(True)
    if not section.train_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    return model


def continued(model: Any, job: TrainingJob, adapter: Path, task: TaskType = "CAUSAL_LM") -> Any:
    """The model with an adapter to be trained further. Raises AdapterMismatch: it is not what the method leaves."""
    from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict

    from tasks.train.run.export import plain_config

    if job.settings.method == "full":
        return all_weights(PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True), job)
    found, wanted = PeftConfig.from_pretrained(adapter), plain_config(peft_config(job, task))
    if shape_of(found) != shape_of(wanted):
        raise AdapterMismatch(
            f"{adapter} is {_told(found)}; methods.{job.settings.method} leaves {_told(wanted)}. "
            "Keep those settings, or set feedback.start: base (of pretrain's adapter: train both stages alike)"
        )
    if not found.is_prompt_learning:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    trained = get_peft_model(model, wanted)  # peft opens no virtual tokens that it reads from a file to training
    set_peft_model_state_dict(trained, load_peft_weights(str(adapter), device="cpu"))
    return trained


def shape_of(config: Any) -> dict[str, Any]:
    """What of an adapter's configuration settles the shape and scale of its weights."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    values = {name: getattr(config, name) for name in SHAPE[kind]}
    return {"kind": kind, **{name: sorted(v) if isinstance(v, set | list) else v for name, v in values.items()}}


def _told(config: Any) -> str:
    shape = shape_of(config)
    lists = {name: "+".join(value) if isinstance(value, list) else value for name, value in shape.items()}
    return f"{lists.pop('kind')} ({', '.join(f'{name} {value}' for name, value in lists.items())})"


def drop_reference(model: Any) -> None:
    """Remove the copy of an adapter that TRL adds as a reference, which is never saved nor counted."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")


def virtual_positions(model: Any) -> int:
    """Positions that stand before the text in a model's logits: virtual tokens, where they are embedded in front."""
    config: Any = getattr(model, "peft_config", {}).get("default")
    embedded = config is not None and config.peft_type.value in ("PROMPT_TUNING", "P_TUNING")
    return int(config.num_virtual_tokens) if embedded else 0


def parameter_counts(model: Any) -> dict[str, int]:
    """Numbers of trained and of all parameters; ZeRO-3 keeps the true size of a shared-out one in `ds_numel`."""
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    return {
        "trainable_parameters": sum(size for size, trained in sizes if trained),
        "parameters": sum(size for size, _ in sizes),
    }
