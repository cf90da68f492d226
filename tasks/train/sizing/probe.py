"""A few real steps of a training, to correct the formulas by what this machine does.

The stage's own worker runs on a few of the stage's own examples, the longest among them: a first step that warms up,
then three or so that are timed, half a minute in all. Kept in .flywheel/cache/probes by machine and the job's digest.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.errors import FlywheelError
from tasks.core.files import digest_of, write_json, write_text
from tasks.core.hardware import gpu_bytes, processors
from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import LaunchError, launch
from tasks.train.sizing.formula import Probe, Sizing, memory_of, operations, sizing_of

STEPS = 4  # of which the first warms up
PROBE_SECONDS = 1800.0  # more, and the formula has to do


class ProbeError(FlywheelError):
    """The probe's processes failed."""


def known_probe(job: TrainingJob) -> Probe | None:
    """The probe of this very job on this machine, where there has been one that can be read."""
    return next(_read(_folder().glob(f"{job.digest()}.json")), None)


def known_speed(precision: str) -> float | None:
    """Operations a second of a process, by the last probe of any job on this machine."""
    paths = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((probe.speed for probe in _read(paths) if probe.precision == precision), None)


def _folder() -> Path:
    """For the probes of this machine: its processors by name and number, and its GPUs."""
    machine = [processors("model name")[:1], len(os.sched_getaffinity(0)), gpu_bytes("total")]
    return layout.CACHE / "probes" / digest_of(machine)[:16]


def _read(paths: Iterable[Path]) -> Iterator[Probe]:
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            yield Probe.model_validate_json(path.read_text(encoding="utf-8"))


def run_probe(job: TrainingJob) -> Probe:
    """Probe a job through its worker, and keep it. Raises ProbeError: its processes failed, with their words."""
    run = layout.HOME / "probe" / job.digest()
    shutil.rmtree(run, ignore_errors=True)
    small = shortened(job, run)
    sizing = sizing_of(small)
    small.write(run / "job.json")
    # Of pretraining's rows, which are not made fewer and are all alike, some.
    write_json(run / "probe.json", {"steps": min(sizing.work.steps, 2 * STEPS)})
    began = time.monotonic()

    def patience() -> str | None:
        return f"it took more than {PROBE_SECONDS:.0f} s" if time.monotonic() - began > PROBE_SECONDS else None

    try:
        arguments = [job.worker, str(run / "job.json"), str(run)]
        launch(job.settings.launch, "tasks.train.sizing.probe_worker", arguments, patience)
        around = time.monotonic() - began
        seen = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(run.glob("probe-*.json"))]
    except LaunchError as error:
        words = [path.read_text(encoding="utf-8", errors="replace")[-2000:] for path in run.glob("output-*.log")]
        lines = [f"{job.stage}: the steps to size it by could not be run: {error}", *words]
        raise ProbeError("\n".join(lines)) from None
    finally:
        shutil.rmtree(run, ignore_errors=True)
    if not seen or not seen[0]["steps"]:
        raise ProbeError(f"{job.stage}: the probe ended without a step")
    probe = probe_of(seen, sizing, around)
    write_json(_folder() / f"{job.digest()}.json", probe.model_dump())
    return probe


def probe_of(seen: Sequence[dict[str, Any]], sizing: Sizing, around: float) -> Probe:
    """A probe's figures of what the processes saw, by the first one's clock; `around`: seconds from launch to end."""
    first, peaks = seen[0], [row["peak_bytes"] for row in seen]
    timed = first["steps"][1 if len(first["steps"]) > 1 else 0 :]
    tokens = sum(tokens for _, tokens in timed) or sizing.work.learnt * len(timed) / sizing.work.steps
    return Probe(
        precision=sizing.precision,
        startup=max(0.0, around - (first["ended"] - first["started"])),
        speed=tokens * operations(sizing) / sum(seconds for seconds, _ in timed),
        saving=first["saving"],
        peak=sum(peaks) // len(peaks) if sizing.on_cpu else max(peaks),
        explained=memory_of(sizing)["total"],
    )


def shortened(job: TrainingJob, run: Path) -> TrainingJob:
    """The job with a few of its lines, one epoch long: a step of the longest, three of all lengths; files in `run`."""
    settings, data = job.settings, dict(job.data)
    step = settings.batch_size * job.processes * settings.gradient_accumulation
    for name, first, more in (("train", step, (STEPS - 1) * step), ("validation", 0, job.processes)):
        if path := data.get(name):
            lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
            lines.sort(key=len, reverse=True)
            rest = lines[first:]
            spread = [rest[(2 * i + 1) * len(rest) // (2 * more)] for i in range(more)] if len(rest) > more else rest
            data[name] = run / path.name
            write_text(data[name], "".join(f"{line}\n" for line in lines[:first] + spread))
    changes = {"epochs": 1, "save_every": 10**6, "max_restarts": 0}
    return job.model_copy(update={"data": data, "settings": settings.model_copy(update=changes)})
