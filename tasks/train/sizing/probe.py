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

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, write_json, write_text
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import LaunchError, launch
from tasks.train.run.precision import CPU_INFO
from tasks.train.sizing.demand import Training, forward_operations, operations
from tasks.train.sizing.lengths import Row
from tasks.train.sizing.workload import (
    ANSWERING,
    CHECKED,
    JUDGING,
    Workload,
    is_online,
    items,
    learnt_from,
    read_rows,
    workload_of,
)
from tasks.train.tuning.batches import BatchError

PROBES = layout.CACHE / "probes"
RATES = PROBES / "rates.json"
STEPS = 4  # of which the first warms up
PROBE_SECONDS = 1800.0  # more, and the formula has to do
CHECKS = 4  # validation examples
MEANING = 2  # of a probe's figures; another number leaves those of before unread


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
    """The probe of this very job on this machine, where there has been one that can be read."""
    with contextlib.suppress(OSError, ValueError):
        return Probe.model_validate_json(_path(job).read_text(encoding="utf-8"))
    return None


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
    small = shortened(job, run, choose(rows, job), middle(checked, 1 if is_online(job) else CHECKS * job.processes))
    work = workload_of(small, *read_rows(small))
    small.write(run / "job.json")
    write_json(run / "probe.json", {"steps": steps_of(small, work)})
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
    probe = measured(seen, training, work, around, online_steps(small, work))
    write_json(_path(job), probe.model_dump())
    _keep_rate(job.settings.precision, probe.rate)
    return probe


def patience(seconds: float) -> Callable[[], str | None]:
    """For `launch`: ends processes that take longer than this."""
    end = time.monotonic() + seconds
    return lambda: f"it took more than {seconds:.0f} s" if time.monotonic() > end else None


def online_steps(job: TrainingJob, work: Workload) -> int:
    """Steps of an update of an online training, the first of which answers; 0 for any other."""
    if not is_online(job):
        return 0
    from tasks.train.run.online_plan import plan_online

    settings: Any = job.settings
    return plan_online(settings, job.processes, work.examples).steps_per_update


def steps_of(job: TrainingJob, work: Workload) -> int:
    """Steps to take: one to warm up and three more; online, as many more as make one update with its answers."""
    update = online_steps(job, work)
    return update + 1 if update else STEPS


def measured(seen: list[dict[str, Any]], training: Training, work: Workload, around: float, update: int) -> Probe:
    """What the processes saw (of each: seconds of steps, validation and saving; peak), as rates.

    Args:
        seen: what each process left, the first one's clock counts.
        training: the job as the formulas see it.
        work: what was computed.
        around: seconds from the launch to the end.
        update: steps of an update of an online training, otherwise 0.
    """
    first = seen[0]
    steps = first["steps"]
    costs = [sum(operations(training, batch) for batch in step) for step in work.steps[: len(steps)]]
    timed = slice(1, None) if len(steps) > 1 else slice(None)
    rate = sum(costs[timed]) / sum(steps[timed])
    checking = sum(forward_operations(training, batch) for batch in work.checks)
    took = first["validation"]
    check_rate = checking / took if took and checking else answer_rate(steps, training, work, update) or rate
    outside = sum(forward_operations(training, batch) for batch in work.outside) / check_rate
    return Probe(
        startup=max(0.0, around - (first["ended"] - first["started"]) - outside),
        rate=rate,
        check_rate=check_rate,
        saving=first["saving"],
        peak=max(row["peak_bytes"] for row in seen),
        peak_total=sum(row["peak_bytes"] for row in seen),
        largest_positions=work.largest.positions,
    )


def answer_rate(steps: Sequence[float], training: Training, work: Workload, update: int) -> float | None:
    """Operations a second while answering: what the first step of the second update takes more than other steps."""
    if update < 2 or len(steps) <= update:
        return None
    more = steps[update] - sum(steps[1:update]) / (update - 1)
    batches = (len(work.steps[0]) - len(work.steps[1])) // ANSWERING * JUDGING
    return batches * forward_operations(training, work.steps[0][0]) / more if more > 0 else None


def choose(rows: Sequence[Row], job: TrainingJob) -> list[Row]:
    """The examples, or prompts with their preferences, to probe with: a step of the longest, three of all lengths.

    Together they make no more than these steps, so that the longest are met.

    Raises:
        BatchError: there are fewer than processes.
    """
    if is_online(job):
        return list(rows)  # of the prompts only those are used that an update asks for
    if len(rows) < job.processes:
        raise BatchError(f"{len(rows)} training examples cannot be shared among {job.processes} processes")
    step = job.settings.batch_size * job.processes * job.settings.gradient_accumulation
    order = sorted(rows, key=lambda row: row.longest, reverse=True)
    longest = 1
    while longest < len(order) and _items(job, order[:longest]) < step:
        longest += 1
    rest, room = order[longest:], STEPS * step - _items(job, order[:longest])
    wanted = room if _items(job, rest) > room else len(rest)
    chosen = _spread(rest, wanted)
    while len(chosen) > 1 and _items(job, chosen) > room:
        wanted = min(wanted - 1, wanted * room // _items(job, chosen))
        chosen = _spread(rest, wanted)
    return [*order[:longest], *chosen]


def _items(job: TrainingJob, rows: Sequence[Row]) -> int:
    return len(items(job, rows))


def _spread(rows: Sequence[Row], count: int) -> list[Row]:
    """As many, evenly from first to last."""
    count = min(count, len(rows))
    return [rows[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]


def middle(rows: Sequence[Row], count: int) -> list[Row]:
    """As many of them, spread evenly over all lengths."""
    return _spread(sorted(rows, key=lambda row: row.longest), count)


def shortened(job: TrainingJob, run: Path, chosen: Sequence[Row], checks: Sequence[Row]) -> TrainingJob:
    """The job with only these of its examples, one epoch long; the files are written into `run`."""
    data = dict(job.data)
    for name, path in job.data.items():
        wanted = chosen if name == learnt_from(job) else checks if name in CHECKED else None
        if wanted is not None and path.suffix == ".jsonl":
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
            data[name] = run / path.name
            write_text(data[name], "".join(f"{lines[i]}\n" for i in sorted(i for row in wanted for i in row.lines)))
    changes: dict[str, Any] = {"epochs": 1, "save_every": 10**6, "max_restarts": 0}
    if is_online(job):
        rollout: Any = job.settings
        changes["rollout"] = rollout.rollout.model_copy(update={"updates": 3})
    return job.model_copy(update={"data": data, "settings": job.settings.model_copy(update=changes)})


def _path(job: TrainingJob) -> Path:
    return PROBES / f"{digest_of([job.digest(), machine(), MEANING])}.json"


def _keep_rate(precision: str, rate: float) -> None:
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(RATES.read_text(encoding="utf-8"))
    write_json(RATES, {**known, f"{machine()} {precision}": rate})
