"""What a training took: seconds, memory of every process, energy. For the card and for checking the estimate.

Every attempt counts, also a killed one: its figures lie in RUN/attempts/. Energy is codecarbon's, offline. Limits: it
is the whole machine's while the training ran; the far machines of a multi-node run are not in it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.files import write_json
from tasks.train.run import heartbeat
from tasks.train.run.checkpoints import size_of
from tasks.train.run.job import TrainingJob, read_result

KEEP_SECONDS = 10.0  # between two writings of an attempt
COUNTRY = "USA"  # codecarbon wants one for grams of CO2, which we do not report


def energy_meter(keep: Callable[[float], None]) -> Any:
    """codecarbon's tracker, at work in threads of its own: `keep` is told the kWh so far, and once more at `stop`."""
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import BaseOutput

    class Keep(BaseOutput):
        def live_out(self, total: Any, delta: Any) -> None:
            keep(float(total.energy_consumed))

        out = live_out

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
    return tracker


class Attempt:
    """One launch of the workers: watched while it runs, and written down."""

    def __init__(self, run: Path) -> None:
        self._run = run
        folder = run / "attempts"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{len(list(folder.glob('*.json')))}.json"
        self._began = self._kept = time.monotonic()
        self._kwh: float | None = None
        self._meter: Any = None
        heartbeat.clear(run)
        self._watch = heartbeat.Watch(run)
        self._keep()

    def look(self) -> str | None:
        """Why the workers should be ended; None while they are well."""
        if self._meter is None:  # its start takes seconds, in which the workers have begun already
            self._meter = energy_meter(self._count)
        if time.monotonic() - self._kept > KEEP_SECONDS:
            self._keep()
        return self._watch.look()

    def end(self) -> None:
        """Write the last figures."""
        if self._meter is not None:
            self._meter.stop()
        self._keep()

    def _count(self, kwh: float) -> None:
        self._kwh = kwh

    def _keep(self) -> None:
        self._kept = time.monotonic()
        seen = [beat for _, beat in sorted(heartbeat.read(self._run).items())]
        attempt = {"seconds": self._kept - self._began, "energy_kwh": self._kwh, "processes": seen}
        try:
            write_json(self._path, attempt)
        except OSError as error:  # a full disk: the training, not its figures, has to say so
            logging.getLogger(__name__).warning("the figures of this attempt were not kept: %s", error)


def write_measured(job: TrainingJob, run: Path, done: Path) -> None:
    """Write .flywheel/measured/<stage>.json from the attempts of a run that has ended.

    seconds: all attempts; training_seconds: from the slowest process's first step to its last. Bytes are the most that
    any attempt saw; the total over processes counts shared pages of libraries more than once.
    """
    attempts = [json.loads(path.read_text()) for path in sorted((run / "attempts").glob("*.json"))]
    result = read_result(done)
    peaks: dict[int, dict[str, int]] = {}
    for beat in (beat for attempt in attempts for beat in attempt["processes"]):
        before = peaks.setdefault(beat["rank"], {"peak_bytes": 0, "peak_gpu_bytes": 0})
        peaks[beat["rank"]] = {name: max(value, beat[name]) for name, value in before.items()}
    kwh = [attempt["energy_kwh"] for attempt in attempts if attempt["energy_kwh"] is not None]
    slowest = [max((beat["training"] for beat in attempt["processes"]), default=0.0) for attempt in attempts]
    write_json(
        layout.MEASURED / f"{job.stage}.json",
        {
            "stage": job.stage,
            "digest": job.digest(),
            **{name: getattr(job.settings, name) for name in ("launch", "method", "precision")},
            "attempts": len(attempts),
            "seconds": sum(attempt["seconds"] for attempt in attempts),
            "training_seconds": sum(slowest),
            "energy_kwh": sum(kwh) if kwh else None,
            "processes": [{"rank": rank, **peaks[rank]} for rank in sorted(peaks)],
            "peak_bytes": sum(peak["peak_bytes"] for peak in peaks.values()),
            "peak_gpu_bytes": sum(peak["peak_gpu_bytes"] for peak in peaks.values()),
            "checkpoint_bytes": max(map(size_of, run.glob("checkpoint-*")), default=0),
            "tokens": result.get("tokens"),
            **{name: result[name] for name in ("steps", "trainable_parameters", "parameters")},
        },
    )
