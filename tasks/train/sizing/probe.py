"""Three real steps of a training, to correct the formulas by what this machine does.

The stage's own worker runs on a few of the stage's own examples, the longest among them: a first step that warms up,
then three that are timed. Kept in .flywheel/cache/probes by the job's digest and this machine, so that a job is
probed once. Leaves no checkpoint behind. Takes the time of four steps and of starting the processes, half a minute.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks import layout
from tasks.errors import FlywheelError
from tasks.files import digest_of, write_json, write_text
from tasks.train.job import TrainingJob
from tasks.train.launch import LaunchError, launch
from tasks.train.precision import CPU_INFO
from tasks.train.sizing.demand import Training, operations
from tasks.train.sizing.lengths import Row
from tasks.train.sizing.workload import CHECKED, Workload, learnt_from, workload_of
from tasks.train.tuning.batches import BatchError

PROBES = layout.CACHE / "probes"
RATES = PROBES / "rates.json"
STEPS = 4  # of which the first warms up
PROBE_SECONDS = 1800.0  # more, and the formula has to do
CHECKS = 4  # validation examples


class ProbeError(FlywheelError):
    """The probe's processes failed."""


class Probe(BaseModel):
    """What three steps showed. Seconds; bytes of the process that held most, and of all processes together."""

    startup: float  # before the first step, and after the last
    rate: float  # operations a second of one process
    check_rate: float  # the same while validating
    saving: float
    peak: int
    peak_total: int
    largest_positions: int  # of the largest batch it has seen


def machine() -> str:
    """Which processor this is, by name and number."""
    names = set()
    with contextlib.suppress(OSError):
        names = {line.split(":", 1)[1].strip() for line in CPU_INFO.read_text().splitlines() if "model name" in line}
    from tasks.train.sizing.machines import cores, gpu_memory

    return f"{' '.join(sorted(names))} x{cores()} gpus {gpu_memory()}"


def known_probe(job: TrainingJob) -> Probe | None:
    """The probe of this very job on this machine, where there has been one."""
    path = _path(job)
    return Probe.model_validate_json(path.read_text(encoding="utf-8")) if path.is_file() else None


def learnt_rate(precision: str) -> float | None:
    """Operations a second of a process as the last probe of this machine found them."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(RATES.read_text(encoding="utf-8")).get(f"{machine()} {precision}")
        return float(found) if found else None
    return None


def run_probe(job: TrainingJob, training: Training, rows: Sequence[Row], checked: Sequence[Row]) -> Probe:
    """Probe a job through the module of its worker, and keep what was found.

    Raises:
        ProbeError: its processes failed.
    """
    run = layout.HOME / "probe" / _path(job).stem
    shutil.rmtree(run, ignore_errors=True)
    chosen, chosen_checks = choose(rows, job), middle(checked, CHECKS * job.processes)
    small = shortened(job, run, chosen, chosen_checks)
    small.write(run / "job.json")
    write_json(run / "probe.json", {"steps": steps_of(small, len(chosen))})
    began = time.time()
    try:
        arguments = [job.worker, str(run / "job.json"), str(run)]
        launch(job.settings.launch, "tasks.train.sizing.probe_worker", arguments, patience(PROBE_SECONDS))
        around = time.time() - began
        seen = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("probe-*.json"))]
    except LaunchError as error:
        raise ProbeError(f"{job.stage}: three steps to size it by could not be run: {error}") from None
    finally:
        shutil.rmtree(run, ignore_errors=True)
    if not seen or not seen[0]["steps"]:
        raise ProbeError(f"{job.stage}: the probe ended without a step")
    work = workload_of(small, [rows[i] for i in chosen], [checked[i] for i in chosen_checks])
    probe = _measured(seen, training, work, around)
    write_json(_path(job), probe.model_dump())
    _keep_rate(job.settings.precision, probe.rate)
    return probe


def patience(seconds: float) -> Callable[[], str | None]:
    """For `launch`: ends processes that take longer than this."""
    end = time.monotonic() + seconds
    return lambda: f"it took more than {seconds:.0f} s" if time.monotonic() > end else None


def steps_of(job: TrainingJob, examples: int) -> int:
    """Steps to take: one to warm up and three more; online, as many more as make one update with its answers."""
    if not getattr(job.settings, "online", False):
        return STEPS
    from tasks.train.online.plan import plan_online

    settings: Any = job.settings
    return plan_online(settings, job.processes, examples).steps_per_update + 1


def _measured(seen: list[dict[str, Any]], training: Training, work: Workload, around: float) -> Probe:
    steps = seen[0]["steps"]
    costs = [sum(operations(training, batch) for batch in step) for step in work.steps[: len(steps)]]
    timed = slice(1, None) if len(steps) > 1 else slice(None)
    rate = sum(costs[timed]) / sum(steps[timed])
    checking = sum(operations(training, batch) for batch in work.checks) / 3.0
    took = seen[0]["validation"]
    return Probe(
        startup=around - (seen[0]["ended"] - seen[0]["started"]),
        rate=rate,
        check_rate=checking / took if took and checking else rate,
        saving=seen[0]["saving"],
        peak=max(row["peak_bytes"] for row in seen),
        peak_total=sum(row["peak_bytes"] for row in seen),
        largest_positions=work.largest.positions,
    )


def choose(rows: Sequence[Row], job: TrainingJob) -> list[int]:
    """Numbers of the examples to probe with: one step of the longest, three of all lengths."""
    if getattr(job.settings, "online", False):
        return list(range(len(rows)))  # of their prompts only those are used that an update asks for
    step = job.settings.batch_size * job.processes * job.settings.gradient_accumulation
    order = sorted(range(len(rows)), key=lambda i: rows[i].longest, reverse=True)
    if len(order) < job.processes:
        raise BatchError(f"{len(order)} training examples cannot be shared among {job.processes} processes")
    rest = order[step:]
    wanted = (STEPS - 1) * step
    spread = [rest[(2 * i + 1) * len(rest) // (2 * wanted)] for i in range(wanted)] if len(rest) >= wanted else rest
    return sorted([*order[:step], *spread])


def middle(rows: Sequence[Row], count: int) -> list[int]:
    """Numbers of `count` examples spread evenly over all lengths."""
    order = sorted(range(len(rows)), key=lambda i: rows[i].longest)
    count = min(count, len(order))
    return sorted(order[(2 * i + 1) * len(order) // (2 * count)] for i in range(count))


def shortened(job: TrainingJob, run: Path, chosen: Sequence[int], checks: Sequence[int]) -> TrainingJob:
    """The job with only these of its examples, one epoch long; the files are written into `run`."""
    data = dict(job.data)
    for name, path in job.data.items():
        wanted = chosen if name == learnt_from(job) else checks if name in CHECKED else None
        if wanted is not None and path.suffix == ".jsonl":
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
            data[name] = run / path.name
            write_text(data[name], "".join(f"{lines[i]}\n" for i in wanted))
    changes: dict[str, Any] = {"epochs": 1, "save_every": 10**6, "max_restarts": 0}
    if getattr(job.settings, "online", False):
        rollout: Any = job.settings
        changes["rollout"] = rollout.rollout.model_copy(update={"updates": 3})
    return job.model_copy(update={"data": data, "settings": job.settings.model_copy(update=changes)})


def _path(job: TrainingJob) -> Path:
    return PROBES / f"{digest_of([job.digest(), machine()])}.json"


def _keep_rate(precision: str, rate: float) -> None:
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(RATES.read_text(encoding="utf-8"))
    write_json(RATES, {**known, f"{machine()} {precision}": rate})
