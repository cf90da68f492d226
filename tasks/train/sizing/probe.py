"""A few real steps of a training, to correct the formulas by what this machine does.

The stage's own worker runs on a few of the stage's own examples, the longest among them: a first step that warms up,
then three that are timed. Kept in .flywheel/cache/probes by machine and the job's digest, so that a job is probed once.
Leaves no checkpoint behind. Takes the time of four steps and of starting the processes, half a minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, write_json, write_text
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import LaunchError, launch
from tasks.train.run.precision import CPU_INFO
from tasks.train.sizing.formula import Training, operations
from tasks.train.sizing.machines import gpu_bytes
from tasks.train.sizing.workload import (
    VALIDATION,
    RowSize,
    Workload,
    is_online,
    items,
    learnt_from,
    read_rows,
    workload_of,
)

STEPS = 4  # of which the first warms up
PROBE_SECONDS = 1800.0  # more, and the formula has to do
VALIDATED = 4  # examples a process
MEANING = 3  # of a probe's figures; another number leaves those of before unread


class ProbeError(FlywheelError):
    """The probe's processes failed."""


class Probe(BaseModel):
    """What a few steps showed."""

    precision: str
    startup: float  # seconds before the first step, and after the last
    rate: float  # operations a second of one process
    forward_rate: float  # the same while validating
    saving: float  # seconds
    peak: int  # bytes of a process: on a GPU of the one that held most, on a processor of all on average


def known_probe(job: TrainingJob) -> Probe | None:
    """The probe of this very job on this machine, where there has been one that can be read."""
    return _read(_path(job))


def known_rate(precision: str) -> float | None:
    """Operations a second of a process, by the last probe of any job on this machine."""
    paths = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((probe.rate for path in paths if (probe := _read(path)) and probe.precision == precision), None)


def _folder() -> Path:
    """For the probes of this machine: its processors by name and number, and its GPUs."""
    names = set()
    with contextlib.suppress(OSError):
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
        names = {line.split(":", 1)[1].strip() for line in lines if "model name" in line}
    machine = [sorted(names), len(os.sched_getaffinity(0)), gpu_bytes("total"), MEANING]
    return layout.CACHE / "probes" / digest_of(machine)[:16]


def _path(job: TrainingJob) -> Path:
    return _folder() / f"{job.digest()}.json"


def _read(path: Path) -> Probe | None:
    with contextlib.suppress(OSError, ValueError):
        return Probe.model_validate_json(path.read_text(encoding="utf-8"))
    return None


def run_probe(job: TrainingJob, training: Training, rows: Sequence[RowSize], held: Sequence[RowSize]) -> Probe:
    """Probe a job through the module of its worker, and keep what was found.

    Raises:
        ProbeError: its processes failed; the last of what they said is in the message.
    """
    run = layout.HOME / "probe" / job.digest()
    shutil.rmtree(run, ignore_errors=True)
    validated = _spread(_by_length(held), 1 if is_online(job) else VALIDATED * job.processes)
    small = shortened(job, run, choose(rows, job), validated)
    work = workload_of(small, *read_rows(small))
    small.write(run / "job.json")
    # Online, one update with its answers and one step more. All that few examples make; of pretraining's rows, which
    # are not made fewer and are all alike, some.
    write_json(run / "probe.json", {"steps": work.update + 1 if work.update else min(len(work.steps), 2 * STEPS)})
    began = time.monotonic()
    try:
        arguments = [job.worker, str(run / "job.json"), str(run)]
        launch(job.settings.launch, "tasks.train.sizing.probe_worker", arguments, _patience(began))
        around = time.monotonic() - began
        seen = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("probe-*.json"))]
    except LaunchError as error:
        words = [path.read_text(encoding="utf-8", errors="replace")[-2000:] for path in run.glob("output-*.log")]
        text = "\n".join([f"{job.stage}: the steps to size it by could not be run: {error}", *words])
        raise ProbeError(text) from None
    finally:
        shutil.rmtree(run, ignore_errors=True)
    if not seen or not seen[0]["steps"]:
        raise ProbeError(f"{job.stage}: the probe ended without a step")
    probe = probe_of(seen, training, work, around)
    write_json(_path(job), probe.model_dump())
    return probe


def _patience(began: float) -> Any:
    """For `launch`: ends processes that take too long."""
    return lambda: f"it took more than {PROBE_SECONDS:.0f} s" if time.monotonic() - began > PROBE_SECONDS else None


def probe_of(seen: Sequence[dict[str, Any]], training: Training, work: Workload, around: float) -> Probe:
    """Rates from what each process saw: seconds of its steps, of validating once and of saving; its peak.

    The first one's clock counts. `around`: seconds from the launch to the end.
    """
    first, peaks = seen[0], [row["peak_bytes"] for row in seen]
    timed = slice(1 if len(first["steps"]) > 1 else 0, len(first["steps"]))
    rate = sum(operations(training, batch) for step in work.steps[timed] for batch in step) / sum(first["steps"][timed])
    forward = [operations(training, batch, backward=False) for batch in work.forward]
    validating = sum(forward[: work.validated])
    forward_rate = validating / first["validation"] if validating and first["validation"] else rate
    # What is computed before the first step or after the last, beside the validations.
    outside = sum(forward[2 * work.validated :]) / forward_rate
    return Probe(
        precision=training.precision,
        startup=max(0.0, around - (first["ended"] - first["started"]) - outside),
        rate=rate,
        forward_rate=forward_rate,
        saving=first["saving"],
        peak=sum(peaks) // len(peaks) if training.on_cpu else max(peaks),
    )


def choose(rows: Sequence[RowSize], job: TrainingJob) -> list[RowSize]:
    """The examples, or prompts with their preferences, to probe with: a step of the longest, three of all lengths."""
    if is_online(job):
        return list(rows)  # of the prompts only those are used that an update asks for
    step = job.settings.batch_size * job.processes * job.settings.gradient_accumulation
    count = max(job.processes, step * len(rows) // max(1, len(items(job, rows))))
    order = _by_length(rows)
    return [*order[:count], *_spread(order[count:], (STEPS - 1) * count)]


def _by_length(rows: Sequence[RowSize]) -> list[RowSize]:
    return sorted(rows, key=lambda row: row.longest, reverse=True)


def _spread(rows: Sequence[RowSize], count: int) -> list[RowSize]:
    """As many, evenly from first to last."""
    count = min(count, len(rows))
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]


def shortened(job: TrainingJob, run: Path, chosen: Sequence[RowSize], validated: Sequence[RowSize]) -> TrainingJob:
    """The job with only these of its examples, one epoch long; the files are written into `run`."""
    data = dict(job.data)
    for name, path in job.data.items():
        rows = chosen if name == learnt_from(job) else validated if name in VALIDATION else None
        if rows is not None and path.suffix == ".jsonl":
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
            data[name] = run / path.name
            write_text(data[name], "".join(f"{lines[i]}\n" for i in sorted(i for row in rows for i in row.lines)))
    changes: dict[str, Any] = {"epochs": 1, "save_every": 10**6, "max_restarts": 0}
    if is_online(job):
        rollout = job.settings.rollout  # type: ignore[attr-defined]
        changes["rollout"] = rollout.model_copy(update={"updates": 3})
    return job.model_copy(update={"data": data, "settings": job.settings.model_copy(update=changes)})
