"""Other settings under which a training that does not fit would: what a refusal offers.

Each is sized by formula like the job itself; a probe's correction is carried over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tasks.train.launch import CONFIGS, read_launch
from tasks.train.precision import CPU_INFO, has_bf16
from tasks.train.sizing.demand import Batch, memory_of
from tasks.train.sizing.shapes import WHOLE
from tasks.training_params import LoraParams

if TYPE_CHECKING:
    from tasks.train.sizing.estimate import Sizing

Alternative = tuple[str, "Sizing"]
SMALL_LORA = LoraParams(rank=16, alpha=32, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])


def alternatives(sizing: Sizing) -> Iterator[Alternative]:
    """(words, the job so changed), from the smallest change to the largest, singly and then together."""
    stage = sizing.job.stage
    single = [*_smaller_batches(sizing, stage), *_bf16(sizing, stage), *_launches(sizing, stage)]
    yield from single
    lighter = list(_lora(sizing, stage))
    yield from lighter
    for words, other in [*_bf16(sizing, stage), *lighter]:
        for more, both in _smaller_batches(other, stage):
            yield f"{words} with {more}", both


def _changed(sizing: Sizing, **training: Any) -> Sizing:
    return _corrected(sizing, replace(sizing, training=replace(sizing.training, **training)))


def _corrected(before: Sizing, after: Sizing) -> Sizing:
    """The probe's peak, moved by what the formulas say the change makes."""
    if before.probe is None:
        return after
    moved = memory_of(after.training, after.work.largest).total - memory_of(before.training, before.work.largest).total
    peak = max(0, before.probe.peak + moved)
    total = max(0, before.probe.peak_total + moved * before.ranks_here)
    return replace(after, probe=before.probe.model_copy(update={"peak": peak, "peak_total": total}))


def _smaller_batches(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    """Half the batch, a quarter, down to one sequence, with as many accumulated as keep the step what it was."""
    size, every = sizing.job.settings.batch_size, sizing.job.settings.gradient_accumulation
    smaller = size // 2
    while smaller >= 1:
        steps = tuple(tuple(_cut(batch, smaller / size) for batch in step) for step in sizing.work.steps)
        settings = sizing.job.settings.model_copy(update={"batch_size": smaller})
        other = replace(
            sizing, work=replace(sizing.work, steps=steps), job=sizing.job.model_copy(update={"settings": settings})
        )
        more = every * -(-size // smaller)
        words = f"{stage}.batch_size: {smaller} and {stage}.gradient_accumulation: {more}"
        yield words, _corrected(sizing, other)
        smaller //= 2


def _cut(batch: Batch, share: float) -> Batch:
    return replace(batch, rows=max(1, round(batch.rows * share)))


def _bf16(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    if sizing.training.precision == "fp32" and (not sizing.training.on_cpu or has_bf16(CPU_INFO)):
        yield f"{stage}.precision: bf16", _changed(sizing, precision="bf16")


def _lora(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    if sizing.training.method in (*WHOLE, "dora"):
        yield f"{stage}.method: lora", _changed(sizing, method="lora", section=SMALL_LORA)


def _launches(sizing: Sizing, stage: str) -> Iterator[Alternative]:
    """Other files of infra/accelerate for the same kind of machine."""
    from tasks.train.sizing.estimate import partition_of

    for path in sorted(CONFIGS.glob("*.yaml")):
        launch = read_launch(path.stem)
        same = bool(launch.get("use_cpu")) == sizing.training.on_cpu
        if not same or launch.get("num_machines", 1) != sizing.machines or path.stem == sizing.job.settings.launch:
            continue
        settings = sizing.job.settings.model_copy(update={"launch": path.stem})
        job = sizing.job.model_copy(update={"settings": settings, "processes": launch["num_processes"]})
        moved = replace(sizing, job=job, training=replace(sizing.training, partition=partition_of(launch)))
        yield f"{stage}.launch: {path.stem}", _corrected(sizing, moved)
