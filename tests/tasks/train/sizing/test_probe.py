"""Which examples a probe sees, and what it makes of the seconds that its processes took."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.core.files import write_json, write_text
from tasks.train.run.job import TrainingJob
from tasks.train.sizing import probe as subject
from tasks.train.sizing.formula import Probe, memory_of, operations, sizing_of
from tasks.train.sizing.probe import probe_of, shortened

PROBE = Probe(precision="fp32", startup=1, speed=5e9, saving=0, peak=1, explained=0)


def test_a_probe_sees_the_longest_lines_and_others_of_all_lengths_for_one_epoch(
    job: TrainingJob, tmp_path: Path
) -> None:
    """Steps of four: the four longest of forty, and twelve spread over the others; as many held out as processes."""
    path = tmp_path / "train.jsonl"
    write_text(path, "".join(f"{'x' * length}\n" for length in range(1, 41)))
    small = shortened(job.model_copy(update={"data": {"train": path, "validation": path}}), tmp_path / "probe")
    held = small.data["validation"].read_text().split()
    small = shortened(job.model_copy(update={"data": {"train": path}}), tmp_path / "probe")
    lengths = [len(line) for line in small.data["train"].read_text().split()]
    assert lengths == [40, 39, 38, 37, *range(35, 0, -3)]
    assert [len(line) for line in held] == [30, 10]
    assert (small.settings.epochs, small.settings.max_restarts) == (1, 0)


def test_speed_is_operations_over_seconds_and_the_first_step_warms_up(job: TrainingJob) -> None:
    """100 tokens in each of three steps of 2 s; ten seconds of 30 from the start to the end; the peak on average."""
    sizing = sizing_of(job)
    one = {"steps": [[9.0, 7], *[[2.0, 100]] * 3], "saving": 0.5, "started": 100.0, "ended": 110.0}
    probe = probe_of([{**one, "peak_bytes": 7}, {**one, "peak_bytes": 9}], sizing, around=30.0)
    assert probe.speed == pytest.approx(operations(sizing) * 50)
    assert (probe.startup, probe.peak, probe.explained) == (20.0, 8, memory_of(sizing)["total"])


def test_the_last_probe_s_speed_serves_other_jobs(job: TrainingJob) -> None:
    """One that cannot be read is none."""
    assert subject.known_probe(job) is None and subject.known_speed("fp32") is None
    path = subject._folder() / f"{job.digest()}.json"
    write_json(path, PROBE.model_dump())
    path.with_name("broken.json").write_text('{"rate": ')
    assert subject.known_probe(job) == PROBE
    assert (subject.known_speed("fp32"), subject.known_speed("bf16")) == (5e9, None)
