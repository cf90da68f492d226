"""The release card's table of what training was predicted to take, and what it took.

Both lie outside the stages' outputs, in .flywheel/measured: what the preflight predicted, and what was measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.core import layout

STAGES = ("pretrain", "sft", "reward", "align")


@dataclass(frozen=True)
class Took:
    """One figure of one stage: in words, predicted and actual, and by how much the prediction was off."""

    stage: str
    what: str
    predicted: str
    actual: str
    off: str


def read_took(root: Path) -> list[Took]:
    """A row for each figure that was measured; empty where nothing was trained here."""
    rows: list[Took] = []
    for stage in STAGES:
        actual = _json(root / layout.MEASURED / f"{stage}.json")
        predicted = _json(root / layout.MEASURED / f"{stage}.predicted.json")
        if actual:
            rows += _stage(stage, predicted, actual)
    return rows


def _stage(stage: str, predicted: dict[str, Any], actual: dict[str, Any]) -> list[Took]:
    """Time, memory, energy, trained parameters. A run that died and went on is not what was predicted."""
    time, memory = predicted.get("time", {}), predicted.get("memory", {})
    again = f" ({actual['attempts']} attempts)" if actual.get("attempts", 1) > 1 else ""
    figures: tuple[tuple[str, Any, Any, str, float], ...] = (
        (f"time{again}", time.get("seconds"), actual.get("seconds"), "{:.0f} s", 1.0),
        ("peak memory", memory.get("needed"), _peak(actual), "{:.2f} GiB", float(1 << 30)),
        ("energy", predicted.get("energy_kwh"), actual.get("energy_kwh"), "{:.3f} kWh", 1.0),
        (
            "trained parameters",
            predicted.get("parameters", {}).get("trained"),
            actual.get("trainable_parameters"),
            "{:,.0f}",
            1.0,
        ),
    )
    return [_row(stage, what, said, did, form, unit) for what, said, did, form, unit in figures if did]


def _peak(actual: dict[str, Any]) -> int | None:
    """What a prediction speaks of: the fullest GPU, or the main memory of all processes together."""
    gpu = max((one["peak_gpu_bytes"] for one in actual.get("processes", [])), default=0)
    return gpu or actual.get("peak_bytes")


def _row(stage: str, what: str, predicted: float | None, actual: float, form: str, unit: float) -> Took:
    said = form.format(predicted / unit) if predicted else "–"
    off = f"{(predicted - actual) / actual:+.0%}" if predicted else "–"
    return Took(stage, what, said, form.format(actual / unit), off)


def _json(path: Path) -> dict[str, Any]:
    """A file's content; empty where it is missing or torn (it decides nothing)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
