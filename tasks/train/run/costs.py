"""What a training took: seconds, memory of every process, energy. For the card and for checking the estimate.

It lands in .flywheel/measured/<stage>.json, outside the stage's outputs, which may hold nothing that depends on the
moment or the machine. Every attempt counts, also one that was killed: its figures are kept in RUN/attempts/ and
rewritten every few seconds.
Energy is codecarbon's, offline: the sensors' reading where the processor or GPU has any, otherwise the processor's
rated power times its load, plus memory. Limits: it is the whole machine's while the training ran, not this
training's alone; the far machines of a multi-node run are not in it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json
from tasks.train.run import heartbeat
from tasks.train.run.checkpoints import size_of
from tasks.train.run.job import TrainingJob, read_result

KEEP_SECONDS = 10.0  # between two writings of an attempt
END_SECONDS = 10.0  # for the last reading of energy
COUNTRY = "USA"  # codecarbon wants one for grams of CO2, which we do not report


class EnergyMeter:
    """codecarbon in the background: its start takes seconds, in which the workers can begin already."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._kwh: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        meter = self

        class Keep(BaseOutput):
            def live_out(self, total: Any, delta: Any) -> None:
                meter._kwh = float(total.energy_consumed)

            def out(self, total: Any, delta: Any) -> None:
                meter._kwh = float(total.energy_consumed)

        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        tracker = OfflineEmissionsTracker(
            country_iso_code=COUNTRY,
            measure_power_secs=5,
            api_call_interval=1,
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
            output_handlers=[Keep()],
        )
        tracker.start()
        self._ended.wait()
        tracker.stop()

    def kwh(self) -> float | None:
        """Energy so far; None as long as nothing was measured."""
        return self._kwh

    def end(self) -> None:
        """Take the last reading."""
        self._ended.set()
        self._thread.join(timeout=END_SECONDS)


class Attempt:
    """One launch of the workers: watched while it runs, and written down."""

    def __init__(self, run: Path) -> None:
        self._run = run
        folder = run / "attempts"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{len(list(folder.glob('*.json')))}.json"
        self._began = self._kept = time.monotonic()
        heartbeat.clear(run)
        self._watch = heartbeat.Watch(run)
        self._meter = EnergyMeter()
        self._keep()

    def look(self) -> str | None:
        """Why the workers should be ended; None while they are well."""
        if time.monotonic() - self._kept > KEEP_SECONDS:
            self._keep()
        return self._watch.look()

    def end(self) -> None:
        """Write the last figures."""
        self._meter.end()
        self._keep()

    def _keep(self) -> None:
        self._kept = time.monotonic()
        seen = [beat for _, beat in sorted(heartbeat.read(self._run).items())]
        attempt = {"seconds": self._kept - self._began, "energy_kwh": self._meter.kwh(), "processes": seen}
        try:
            write_json(self._path, attempt)
        except OSError as error:  # a full disk: the training, not its figures, has to say so
            logging.getLogger(__name__).warning("the figures of this attempt were not kept: %s", error)


def write_measured(job: TrainingJob, run: Path, done: Path) -> None:
    """Write .flywheel/measured/<stage>.json from the attempts of a run that has ended.

    seconds: all attempts, from launch to end. training_seconds: the same from the first step to the last (the slowest
    process). energy_kwh: null where nothing was measured. Bytes are the most that any attempt saw; the total is the
    sum over processes, which share the pages of libraries, so it is an upper bound.
    """
    attempts = [json.loads(path.read_text()) for path in sorted((run / "attempts").glob("*.json"))]
    result = read_result(done)
    peaks: dict[int, dict[str, int]] = {}
    for beat in (beat for attempt in attempts for beat in attempt["processes"]):
        before = peaks.setdefault(beat["rank"], {"peak_bytes": 0, "peak_gpu_bytes": 0})
        peaks[beat["rank"]] = {name: max(value, beat[name]) for name, value in before.items()}
    kwh = [attempt["energy_kwh"] for attempt in attempts if attempt["energy_kwh"] is not None]
    write_json(
        layout.MEASURED / f"{job.stage}.json",
        {
            "stage": job.stage,
            "digest": job.digest(),
            "launch": job.settings.launch,
            "method": job.settings.method,
            "precision": job.settings.precision,
            "attempts": len(attempts),
            "seconds": sum(attempt["seconds"] for attempt in attempts),
            "training_seconds": sum(
                max((beat["training"] for beat in attempt["processes"]), default=0.0) for attempt in attempts
            ),
            "energy_kwh": sum(kwh) if kwh else None,
            "processes": [{"rank": rank, **peaks[rank]} for rank in sorted(peaks)],
            "peak_bytes": sum(peak["peak_bytes"] for peak in peaks.values()),
            "peak_gpu_bytes": sum(peak["peak_gpu_bytes"] for peak in peaks.values()),
            "checkpoint_bytes": max(map(size_of, run.glob("checkpoint-*")), default=0),
            "steps": result["steps"],
            "tokens": result.get("tokens"),
            "trainable_parameters": result["trainable_parameters"],
            "parameters": result["parameters"],
        },
    )
