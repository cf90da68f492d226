"""One training with all that its sizes follow from: whether it fits, how long it takes, and under what it would fit."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.training_params import DoraParams, LoraParams, OsfParams, QloraParams
from tasks.train.preference.rows import KTO_ROWS
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import CONFIGS, read_launch
from tasks.train.run.precision import multiplies_bf16
from tasks.train.sizing.formula import Training, checkpoint_bytes, memory_of, operations, result_bytes, training_of
from tasks.train.sizing.machines import Prices, free_memory, gpu_bytes, read_prices
from tasks.train.sizing.probe import Probe, ProbeError, known_probe, known_rate, run_probe
from tasks.train.sizing.workload import RowSize, Workload, is_online, read_rows, workload_of

GIB = 1 << 30
# A run holds more than a probe saw: freed blocks of other sizes that the allocator keeps. Measured by bench_estimate.
GROWTH = 1.1
KEPT_CHECKPOINTS = 3  # two, and the one that is being written
KEPT_RESULTS = 3  # the workers', the stage's own, and DVC's
PROBE_SPREAD, FORMULA_SPREAD = 1.25, 3.0  # factors within which the time is expected
FORMULA_STARTUP = 25.0  # seconds until the first step: imports and loading
DISK_RATE = 3e8  # bytes a second that a checkpoint is written with
PROBE_FROM_SECONDS = 1200.0  # a stage probes by itself only where the formula expects more than this
PROBE_FROM_SHARE = 0.5  # or where it expects more than this share of the free memory to be taken
SMALL_LORA = LoraParams(rank=16, alpha=32, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])


@dataclass(frozen=True)
class Sizing:
    """One job with all that its sizes follow from."""

    job: TrainingJob
    training: Training
    work: Workload
    rows: list[RowSize]  # what `work` was planned from: learnt from, and validated on
    held: list[RowSize]
    machines: int
    probe: Probe | None = None
    unexplained: int = 0  # bytes by which the probe's peak is above the formula's

    @property
    def ranks_here(self) -> int:
        """Processes on each machine."""
        return max(1, self.job.processes // self.machines)

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of one process by component; `runtime` takes up what a probe found and the formulas do not explain."""
        found = memory_of(self.training, self.work.largest)
        found["runtime"] = max(0, found["runtime"] + self.unexplained)
        return found | {"total": sum(found.values()) - found["host"]}

    @property
    def needed(self) -> int:
        """Bytes that the processes of one machine take together: of main memory on CPU, of each GPU otherwise."""
        return self.memory["total"] * (self.ranks_here if self.training.on_cpu else 1)

    @property
    def disk(self) -> int:
        """Bytes of checkpoints while it trains, and of what it leaves."""
        return KEPT_CHECKPOINTS * checkpoint_bytes(self.training) + KEPT_RESULTS * result_bytes(self.training)


def size(job: TrainingJob, probe: Literal["always", "doubt", "known"] = "known") -> Sizing:
    """Size a job. `probe`: run one where none is known; only where the formula leaves doubt; or never.

    What the formula says cannot run here is not probed, nor what runs on several machines: it would wait for the
    others. A probe that fails leaves the formula, with a warning.

    Raises:
        ShapeError: the base model cannot be sized.
    """
    launch = read_launch(job.settings.launch)
    training, (rows, held) = training_of(job, launch), read_rows(job)
    found = Sizing(job, training, workload_of(job, rows, held), rows, held, launch.get("num_machines", 1))
    known = known_probe(job)
    wanted = probe == "always" or (probe == "doubt" and in_doubt(found))
    if known is None and wanted and found.machines == 1 and not problems(found):
        try:
            known = run_probe(job, training, rows, held)
        except ProbeError as error:
            logging.getLogger(__name__).warning("%s; it is sized by formula alone, which may be off by far", error)
    if known is None:
        return found
    return replace(found, probe=known, unexplained=int(known.peak * GROWTH) - found.memory["total"])


def in_doubt(sizing: Sizing) -> bool:
    """Whether a few real steps are worth their time: for long runs, and where memory may not do but surely could."""
    free = available(sizing.training.on_cpu)
    close = PROBE_FROM_SHARE * free < sizing.needed <= free
    return close or time_of(sizing, read_prices())["seconds"] > PROBE_FROM_SECONDS


def available(on_cpu: bool) -> int:
    """Bytes free for training: main memory of this machine, or of its fullest GPU; 0 where there is none."""
    return free_memory() if on_cpu else min(gpu_bytes("free"), default=0)


def disk_free() -> int:
    """Bytes free where checkpoints lie."""
    return shutil.disk_usage(layout.HOME if layout.HOME.is_dir() else ".").free


def problems(sizing: Sizing) -> list[str]:
    """Why a job cannot run here, in sentences; empty where it can.

    Too little main memory, or too few GPUs, too little memory on one of them, or beside them for ZeRO's offload.
    """
    found = []
    needed, ranks = sizing.needed, sizing.ranks_here
    if sizing.training.on_cpu:
        if needed > (free := free_memory()):
            found.append(f"it needs {gib(needed)} of main memory, and {gib(free)} are free")
    elif not (gpus := gpu_bytes("free")):
        return [f"launch {sizing.job.settings.launch} needs GPUs, and there is none on this machine"]
    else:
        if len(gpus) < ranks:
            found.append(f"launch {sizing.job.settings.launch} needs {ranks} GPUs, and this machine has {len(gpus)}")
        if needed > min(gpus):
            found.append(f"it needs {gib(needed)} on each GPU, and {gib(min(gpus))} are free")
        if (host := sizing.memory["host"] * ranks) > (free := free_memory()):
            found.append(f"what is offloaded needs {gib(host)} of main memory, and {gib(free)} are free")
    if sizing.disk > (free := disk_free()):
        found.append(f"checkpoints need {gib(sizing.disk)} of disk, and {gib(free)} are free")
    return found


def time_of(sizing: Sizing, prices: Prices) -> dict[str, Any]:
    """Seconds by part, and the range they are expected in: by the probe's rates, otherwise by known or given ones."""
    training, precision = sizing.training, sizing.training.precision
    if not training.on_cpu:
        rate = min(gpu.bf16_tflops for gpu in prices.gpus) * 1e12 * prices.gpu_utilisation
    else:
        rate = known_rate(precision) or getattr(prices.this_machine.gflops_per_process, precision) * 1e9
    parts = seconds_by_part(training, sizing.work, sizing.probe or guess(training, rate), prices)
    seconds, spread = sum(parts.values()), PROBE_SPREAD if sizing.probe else FORMULA_SPREAD
    found = {"seconds": seconds, "low": seconds / spread, "high": seconds * spread, **parts}
    rounded = {name: round(value, 1) for name, value in found.items()}
    return {**rounded, "source": "probe" if sizing.probe else "formula"}


def guess(training: Training, rate: float) -> Probe:
    """What stands in for a probe, at so many operations a second."""
    saving = checkpoint_bytes(training) / DISK_RATE
    precision = training.precision
    return Probe(precision=precision, startup=FORMULA_STARTUP, rate=rate, forward_rate=rate, saving=saving, peak=0)


def seconds_by_part(training: Training, work: Workload, probe: Probe, prices: Prices) -> dict[str, float]:
    """Seconds of one process. On a GPU no pass is faster than its layers allow, however little there is to compute."""
    floor = 0.0 if training.on_cpu else prices.gpu_layer_milliseconds / 1000 * training.shape.layers
    learning = (operations(training, batch) for step in work.steps for batch in step)
    forward = (operations(training, batch, backward=False) for batch in work.forward)
    return {
        "startup": probe.startup,
        "training": sum(max(count / probe.rate, floor) for count in learning),
        "validation": sum(max(count / probe.forward_rate, floor / 3) for count in forward),
        "saving": work.saves * probe.saving,
    }


def alternatives(sizing: Sizing) -> Iterator[tuple[str, Sizing]]:
    """(words, the job so changed), from the smallest change to the largest, singly and then with the smallest batch.

    Each is planned and sized by formula like the job itself, and corrected by its probe. Only what the stage would
    accept is offered.
    """
    smaller, lighter = _smaller_batches(sizing.job), _lighter(sizing)
    for change in [*smaller, *lighter, *({**change, **smaller[-1]} for change in lighter if smaller)]:
        if other := _changed(sizing, **change):
            yield " and ".join(f"{sizing.job.stage}.{name}: {value}" for name, value in change.items()), other


def _smaller_batches(job: TrainingJob) -> list[dict[str, Any]]:
    """Half the batch, a quarter, down to the least, with as many accumulated as keep the step what it was.

    The online methods accumulate by themselves: a step is a minibatch of the update, whatever passes at once.
    """
    settings, size, found = job.settings, job.settings.batch_size // 2, []
    while size >= (KTO_ROWS if getattr(settings, "alignment", "none") == "kto" else 1):
        more = settings.gradient_accumulation * -(-settings.batch_size // size)
        found.append({"batch_size": size} | ({} if is_online(job) else {"gradient_accumulation": more}))
        size //= 2
    return found


def _lighter(sizing: Sizing) -> list[dict[str, Any]]:
    """bf16, other files of infra/accelerate for the same kind of machine, and LoRA."""
    training = sizing.training
    found: list[dict[str, Any]] = []
    if training.precision == "fp32" and multiplies_bf16(training.on_cpu):
        found.append({"precision": "bf16"})
    for name in sorted(path.stem for path in CONFIGS.glob("*.yaml")):
        launch = read_launch(name)
        same = bool(launch.get("use_cpu")) == training.on_cpu and launch.get("num_machines", 1) == sizing.machines
        if same and name != sizing.job.settings.launch:
            found.append({"launch": name})
    if training.full or isinstance(training.section, OsfParams | DoraParams):
        found.append({"method": "lora"})
    return found


def _changed(sizing: Sizing, **settings: Any) -> Sizing | None:
    """The same with other settings of the stage; None where they do not fit each other, the data or the method."""
    job = sizing.job.model_copy(update={"settings": sizing.job.settings.model_copy(update=settings)})
    if settings.get("method") == "lora":
        job = job.model_copy(update={"method": SMALL_LORA.model_dump()})
    launch = read_launch(job.settings.launch)
    job = job.model_copy(update={"processes": launch["num_processes"]})
    training = training_of(job, launch)
    # tasks/train/run/methods.py refuses them there: they read whole weights, which ZeRO-3 shares out.
    whole = isinstance(training.section, OsfParams | QloraParams) or (training.full and job.start is not None)
    if whole and training.zero >= 3:
        return None
    try:
        return replace(sizing, job=job, training=training, work=workload_of(job, sizing.rows, sizing.held))
    except FlywheelError:
        return None


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{math.ceil(size / (1 << 20))} MiB"
