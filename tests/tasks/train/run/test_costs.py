"""What a training took: the sum over attempts, the most of any of them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.core.files import write_json
from tasks.train.run import heartbeat
from tasks.train.run.costs import Attempt, energy_meter, write_measured

JOB: Any = SimpleNamespace(
    stage="sft", digest=lambda: "d", settings=SimpleNamespace(launch="cpu", method="lora", precision="fp32")
)


def a_beat(rank: int, peak: int, training: float) -> dict[str, Any]:
    return {"rank": rank, "peak_bytes": peak, "peak_gpu_bytes": 0, "training": training}


def test_attempts_add_up_and_memory_is_the_most_of_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds 10 + 20; training max(4, 5) + max(7, 6); energy where it was measured; memory max(5, 3) + max(6, 8)."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    write_json(
        run / "attempts/0.json",
        {"seconds": 10.0, "energy_kwh": None, "processes": [a_beat(0, 5, 4.0), a_beat(1, 6, 5.0)]},
    )
    write_json(
        run / "attempts/1.json",
        {"seconds": 20.0, "energy_kwh": 0.25, "processes": [a_beat(0, 3, 7.0), a_beat(1, 8, 6.0)]},
    )
    write_json(run / "final/result.json", {"steps": 4, "tokens": 70, "trainable_parameters": 1, "parameters": 2})
    (run / "checkpoint-4").mkdir()
    (run / "checkpoint-4/weights").write_bytes(b"w" * 100)
    write_measured(JOB, run, run / "final")
    assert json.loads((tmp_path / ".flywheel/measured/sft.json").read_text()) == {
        "stage": "sft",
        "digest": "d",
        "launch": "cpu",
        "method": "lora",
        "precision": "fp32",
        "attempts": 2,
        "seconds": 30.0,
        "training_seconds": 12.0,
        "energy_kwh": 0.25,
        "processes": [
            {"rank": 0, "peak_bytes": 5, "peak_gpu_bytes": 0},
            {"rank": 1, "peak_bytes": 8, "peak_gpu_bytes": 0},
        ],
        "peak_bytes": 13,
        "peak_gpu_bytes": 0,
        "checkpoint_bytes": 100,
        "steps": 4,
        "tokens": 70,
        "trainable_parameters": 1,
        "parameters": 2,
    }


def test_an_attempt_is_kept_while_it_runs_so_that_a_kill_loses_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt has its own file, and the beats of the one before are forgotten."""
    monkeypatch.setattr("tasks.train.run.costs.KEEP_SECONDS", 0.0)
    monkeypatch.setattr("tasks.train.run.costs.energy_meter", lambda keep: keep(0.5))
    monkeypatch.setattr(heartbeat, "_beat", None)
    (tmp_path / "beats").mkdir()
    (tmp_path / "beats/7.json").write_text("{}")
    for number in range(2):
        attempt = Attempt(tmp_path)
        heartbeat.begin(tmp_path, 0)
        assert attempt.look() is None
        kept = json.loads((tmp_path / f"attempts/{number}.json").read_text())
        assert kept["energy_kwh"] == 0.5 and [beat["rank"] for beat in kept["processes"]] == [0]


def test_energy_is_measured_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that idles for a moment still draws something."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    seen: list[float] = []
    energy_meter(seen.append).stop()
    assert 0 < seen[-1] < 0.1
