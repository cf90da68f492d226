"""The release card's table of what training was predicted to take, and what it took.

Both lie outside the stages' outputs, in .flywheel/measured: what the preflight predicted, and what was seen.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core import layout
from tasks.core.graph import training_stages


@dataclass(frozen=True)
class TrainingCost:
    """One figure of one stage: in words, predicted and actual, and by how much the prediction was off."""

    stage: str
    what: str
    predicted: str
    actual: str
    off: str


def read_costs(root: Path) -> list[TrainingCost]:
    """A row for each figure that is known; empty where nothing was trained here."""
    folder = root / layout.MEASURED
    both = [
        (stage, _json(folder / f"{stage}.predicted.json"), _json(folder / f"{stage}.json"))
        for stage in training_stages()
    ]
    return [row for stage, predicted, actual in both for row in _rows(stage, predicted, actual)]


def _rows(stage: str, predicted: dict[str, Any], actual: dict[str, Any]) -> list[TrainingCost]:
    """Time, memory, energy, trained parameters. A run that died and went on is not what was predicted."""
    tries = actual.get("attempts", 1)
    # A prediction speaks of the fullest GPU, or of the main memory of all processes together.
    gpu = max((one["peak_gpu_bytes"] for one in actual.get("processes", [])), default=0)
    time, memory, parameters = (predicted.get(name, {}) for name in ("time", "memory", "parameters"))
    trained = parameters.get("trained"), actual.get("trainable_parameters")
    figures = (
        (
            f"time ({tries} attempts)" if tries > 1 else "time",
            time.get("seconds"),
            actual.get("seconds"),
            "{:.0f} s",
            1,
        ),
        ("peak memory", memory.get("needed"), gpu or actual.get("peak_bytes"), "{:.2f} GiB", 1 << 30),
        ("energy", predicted.get("energy_kwh"), actual.get("energy_kwh"), "{:.3f} kWh", 1),
        ("trained parameters", *trained, "{:,.0f}", 1),
    )
    return [
        TrainingCost(
            stage,
            what,
            form.format(before / unit) if before else "–",
            form.format(after / unit),
            f"{(before - after) / after:+.0%}" if before else "–",
        )
        for what, before, after, form, unit in figures
        if after
    ]


def _json(path: Path) -> dict[str, Any]:
    """A file's content; empty where it is missing or torn (it decides nothing)."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError):
        return {}
