"""Which examples a probe sees, and what it makes of the seconds that its processes took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.files import write_json
from tasks.train.run.job import TrainingJob
from tasks.train.sizing import probe as subject
from tasks.train.sizing.formula import operations
from tasks.train.sizing.probe import choose, probe_of, shortened
from tasks.train.sizing.sizing import size
from tasks.train.sizing.workload import Batch, RowSize, Workload, items, read_rows, workload_of


def test_a_probe_sees_the_longest_examples_and_others_of_all_lengths(job: TrainingJob) -> None:
    """Steps of four: the four longest of forty, and twelve spread over the others."""
    rows = [RowSize(1, (length,)) for length in range(40)]
    chosen = [row.answers[0] for row in choose(rows, job)]
    assert chosen[:4] == [39, 38, 37, 36]
    assert chosen[4:] == [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1]


def test_a_probe_s_job_is_one_epoch_of_its_own_examples(job: TrainingJob, tmp_path: Path) -> None:
    rows, held = read_rows(job)
    small = shortened(job, tmp_path / "probe", [rows[4], rows[1]], held[:1])
    lines = job.data["train"].read_text().splitlines()
    assert small.data["train"].read_text().splitlines() == [lines[1], lines[4]]
    assert len(small.data["validation"].read_text().splitlines()) == 1
    assert (small.settings.epochs, small.settings.max_restarts) == (1, 0)
    assert job.data["train"].read_text().splitlines() == lines


def test_a_probe_of_a_reward_model_takes_whole_prompts(preferring: Any, tmp_path: Path) -> None:
    """Steps of two prompts: the two longest of twelve and six others, each with both of its lines."""
    job = preferring("reward", prompts=12, batch_size=1)
    rows, _ = read_rows(job)
    chosen = choose(rows, job)
    assert chosen[0].longest == max(row.longest for row in rows)
    small = shortened(job, tmp_path / "probe", chosen, [])
    again, _ = read_rows(small)
    assert len(small.data["train"].read_text().splitlines()) == 16
    assert sorted((row.prompt, row.answers, row.pairs) for row in again) == sorted(
        (row.prompt, row.answers, row.pairs) for row in chosen
    )
    assert len(workload_of(small, again, []).steps) == 4


def test_a_probe_of_kto_takes_about_as_many_prompts_as_its_steps_hold(preferring: Any) -> None:
    """Steps of four answers, three a prompt: two prompts hold the first of them, eight all four."""
    job = preferring("kto", prompts=12, batch_size=2)
    rows, _ = read_rows(job)
    chosen = choose(rows, job)
    assert (len(chosen), len(items(job, chosen))) == (8, 24)


def test_rates_are_operations_over_seconds_and_the_first_step_warms_up(job: TrainingJob) -> None:
    """Three steps of one batch in 2 s each, a validation in 4 s, twelve seconds from the first step to the end.

    A pass before the first step is no part of starting; the peak is that of a process on average.
    """
    training, batch = size(job).training, Batch(2, 8, 4)
    work = Workload(((batch,),) * 4, (batch,) * 3, 8, 64, saves=1, validated=1)
    one = {"steps": [9.0, 2.0, 2.0, 2.0], "validation": 4.0, "saving": 0.5, "started": 100.0, "ended": 110.0}
    probe = probe_of([{**one, "peak_bytes": 7}, {**one, "peak_bytes": 9}], training, work, around=30.0)
    assert probe.rate == pytest.approx(operations(training, batch) / 2.0)
    assert probe.forward_rate == pytest.approx(operations(training, batch, backward=False) / 4.0)
    assert probe.startup == pytest.approx(30.0 - 10.0 - 4.0)
    assert probe.peak == 8


def test_the_last_probe_s_speed_serves_other_jobs(job: TrainingJob) -> None:
    """One that cannot be read is none."""
    path = subject._path(job)
    assert subject.known_probe(job) is None and subject.known_rate("fp32") is None
    probe = subject.Probe(precision="fp32", startup=1, rate=5e9, forward_rate=1, saving=0, peak=1)
    write_json(path, probe.model_dump())
    path.with_name("broken.json").write_text('{"rate": ')
    assert subject.known_probe(job) == probe
    assert (subject.known_rate("fp32"), subject.known_rate("bf16")) == (5e9, None)
