"""Signs of life: what a process writes, and when the stage counts it as lost."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.train.run import heartbeat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    def one(rank: int, beat: float, phase: str = "training", moves: int = 1, longest: float = 1.0) -> None:
        (tmp_path / "beats").mkdir(exist_ok=True)
        content = {"rank": rank, "beat": beat, "phase": phase, "moves": moves, "longest": longest}
        (tmp_path / f"beats/{rank}.json").write_text(json.dumps(content).ljust(heartbeat.SIZE))

    return one


def test_a_process_that_falls_silent_is_noticed_within_thirty_seconds(
    tmp_path: Path, clock: list[float], write: Any
) -> None:
    """Process 1 beats once and never again; the stage looks at every second."""
    watch = heartbeat.Watch(tmp_path)
    write(1, 5.0)
    for second in range(40):
        clock[0] = 1000.0 + second
        write(0, float(second), moves=second)
        if reason := watch.look():
            break
    assert reason == "process 1 has given no sign of life for 21 s" and second < 30


@pytest.mark.parametrize("phase", ["starting", "saving", "ending"])
def test_a_process_that_loads_or_saves_may_be_silent_for_longer(
    tmp_path: Path, clock: list[float], write: Any, phase: str
) -> None:
    """But what comes before and after the steps may take any time with a beat: reference probabilities, for hours."""
    watch = heartbeat.Watch(tmp_path)
    write(0, 5.0, phase)
    seen = []
    for second in (0, 60, 1800, 1801):
        clock[0] = 1000.0 + second
        seen.append(watch.look() is None)
    assert seen == [True, True, True, False]
    for second in range(2000, 36000, 600):
        clock[0] = 1000.0 + second
        write(0, float(second), phase)
        assert watch.look() is None


@pytest.mark.parametrize(("longest", "patience"), [(1.0, 900), (100.0, 2000)])
def test_processes_that_live_but_do_not_move_on_are_noticed(
    tmp_path: Path, clock: list[float], write: Any, longest: float, patience: int
) -> None:
    """A hang: 900 seconds without a step, where steps took one; where they take 100, 20 times as long."""
    watch = heartbeat.Watch(tmp_path)
    reasons = []
    for second in (*range(0, patience, 10), patience - 1, patience + 1):
        clock[0] = 1000.0 + second
        write(0, float(second), moves=7, longest=longest)
        reasons.append(watch.look())
    assert set(reasons[:-1]) == {None} and reasons[-1] == f"no process has moved on for {patience + 1} s"


def test_a_beat_tells_what_the_training_has_come_to(clock: list[float], noted: None) -> None:
    """Two steps of 3 and 5 seconds and a save of 7: the longest step took 5, the training 15."""
    heartbeat.note("training", 10, 100)
    for seconds, phase, step in ((3, "training", 11), (5, "training", 12), (0, "saving", 12), (7, "training", 0)):
        clock[0] += seconds
        heartbeat.note(phase, step)
    clock[0] += 100
    heartbeat.note("ending")
    assert heartbeat._noted == {
        "phase": "ending",
        "moves": 6,
        "step": 12,
        "steps": 100,
        "longest": 5.0,
        "training": 115.0,
    }


def test_the_file_keeps_its_size_and_a_torn_one_is_left_out(tmp_path: Path, noted: None) -> None:
    heartbeat.begin(tmp_path, 3)
    heartbeat.note("training", 41, 60)
    assert heartbeat.read(tmp_path)[3]["step"] == 41  # at once, not only at the next beat
    assert (tmp_path / "beats/3.json").stat().st_size == heartbeat.SIZE
    (tmp_path / "beats/4.json").write_text('{"rank": 4, "be')
    assert list(heartbeat.read(tmp_path)) == [3]
    heartbeat.clear(tmp_path)
    assert heartbeat.read(tmp_path) == {}


def test_a_beat_of_the_thread_never_hides_a_later_step(
    tmp_path: Path, noted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step comes while the thread gathers what it writes."""
    gathering = threading.Event()

    def memory() -> dict[str, int]:
        if threading.current_thread().name == "beats":
            gathering.set()
            time.sleep(0.1)
        return {}

    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 600.0)
    monkeypatch.setattr(heartbeat, "memory", memory)
    heartbeat.begin(tmp_path, 0)
    assert gathering.wait(60)
    heartbeat.note("training", 41, 60)
    time.sleep(0.3)  # for the thread to write
    assert heartbeat.read(tmp_path)[0]["step"] == 41


def test_peak_memory_is_what_the_process_once_held() -> None:
    """A hundred megabytes, filled and let go again; the kernel counts them to within a few pages."""
    code = (
        "from tasks.train.run.heartbeat import memory; b = memory()['peak_bytes']; "
        "x = bytes(10**8).replace(b'\\0', b'1')"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; del x; print(memory()['peak_bytes'] - b)"], capture_output=True, text=True
    )
    assert 0.95e8 < int(done.stdout) < 3e8, done.stderr
