"""Other settings under which a training that does not fit would: what a refusal offers.

Each is planned and sized by formula like the job itself; a probe's correction is carried over. Only what the stage
would accept is offered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.core.errors import FlywheelError
from tasks.core.training_params import LoraParams
from tasks.train.run.launch import CONFIGS, read_launch
from tasks.train.run.precision import multiplies_bf16
from tasks.train.sizing.companions import companions_of
from tasks.train.sizing.demand import memory_of
from tasks.train.sizing.shapes import WHOLE
from tasks.train.sizing.workload import is_online, workload_of

if TYPE_CHECKING:
    from tasks.train.sizing.sized import Sizing

Alternative = tuple[str, "Sizing"]
SMALL_LORA = LoraParams(rank=16, alpha=32, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])


def alternatives(sizing: Sizing) -> Iterator[Alternative]:
    """(words, the job so changed), from the smallest change to the largest, singly and then together."""
    stage = sizing.job.stage
    bf16, lighter = list(_bf16(sizing, stage)), list(_lora(sizing, stage))
    yield from _smaller_batches(sizing, stage)
    yield from bf16
    yield from _launches(sizing, stage)
    yield from lighter
    for words, other in [*bf16, *lighter]:
        for more, both in _smaller_batches(other, stage):
            yield f"{words} with {more}", both


def _changed(sizing: Sizing, **training: Any) -> Sizing:
    return _corrected(sizing, replace(sizing, training=replace(sizing.training, **training)))


def _planned(sizing: Sizing, processes: int, **settings: Any) -> Sizing | None:
    """The same with other settings of the stage; None where they do not fit each other or the data."""
    changed = sizing.job.settings.model_copy(update=settings)
    job = sizing.job.model_copy(update={"settings": changed, "processes": processes})
    try:
        work = workload_of(job, sizing.rows, sizing.checked)
    except FlywheelError:
        return None
    return replace(sizing, job=job, work=work, training=replace(sizing.training, beside=companions_of(job)))


def _corrected(before: Sizing, after: Sizing) -> Sizing:
    """The probe's peak, moved by what the formulas say the change makes."""
    if before.probe is None:
        return after
    moved = memory_of(after.training, after.work.largest).total - memory_of(before.training, before.work.largest).total
    peak = max(0, before.probe.peak + moved)
    total = max(0, before.probe.peak_total // before.ranks_here + moved) * after.ranks_here
    return replace(after, probe=before.probe.model_copy(update={"peak": peak, "peak_total": total}))


def _smaller_batches(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    """Half the batch, a quarter, down to the least, with as many accumulated as keep the step what it was.

    The online methods accumulate by themselves: a step is a minibatch of the update, whatever passes at once.
    """
    size, every = sizing.job.settings.batch_size, sizing.job.settings.gradient_accumulation
    smaller = size // 2
    while smaller >= _least(sizing):
        more = 1 if is_online(sizing.job) else every * -(-size // smaller)
        other = _planned(sizing, sizing.job.processes, batch_size=smaller, gradient_accumulation=more)
        words = f"{stage}.batch_size: {smaller}"
        if more != every:
            words += f" and {stage}.gradient_accumulation: {more}"
        if other is not None:
            yield words, _corrected(sizing, other)
        smaller //= 2


def _least(sizing: Sizing) -> int:
    """Sequences, pairs or prompts that a batch has to have."""
    from tasks.train.preference.rows import KTO_ROWS

    return KTO_ROWS if getattr(sizing.job.settings, "alignment", "none") == "kto" else 1


def _bf16(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    if sizing.training.precision == "fp32" and multiplies_bf16(sizing.training.on_cpu):
        yield f"{stage}.precision: bf16", _changed(sizing, precision="bf16")


def _lora(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    if sizing.training.method not in (*WHOLE, "dora"):
        return
    other = _planned(sizing, sizing.job.processes, method="lora")
    if other is not None:
        training = replace(other.training, method="lora", section=SMALL_LORA)
        yield f"{stage}.method: lora", _corrected(sizing, replace(other, training=training))


def _launches(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    """Other files of infra/accelerate for the same kind of machine."""
    from tasks.train.sizing.sized import partition_of

    for path in sorted(CONFIGS.glob("*.yaml")):
        launch = read_launch(path.stem)
        same = bool(launch.get("use_cpu")) == sizing.training.on_cpu
        if not same or launch.get("num_machines", 1) != sizing.machines or path.stem == sizing.job.settings.launch:
            continue
        partition = partition_of(launch)
        other = _planned(sizing, launch["num_processes"], launch=path.stem)
        if other is None or (partition.stage >= 3 and _needs_whole(sizing)):
            continue
        moved = replace(other, training=replace(other.training, partition=partition))
        yield f"{stage}.launch: {path.stem}", _corrected(sizing, moved)


def _needs_whole(sizing: Sizing) -> bool:
    """Whether the method reads whole weights, which ZeRO-3 shares out: tasks/train/run/methods.py refuses it there."""
    method = sizing.training.method
    return method in ("osf", "qlora") or (method == "full" and sizing.job.start is not None)
