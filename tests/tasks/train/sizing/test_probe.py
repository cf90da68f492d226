"""Which examples a probe sees, and what it makes of the seconds that its processes took."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.train.run.job import TrainingJob
from tasks.train.sizing import probe as subject
from tasks.train.sizing.demand import Batch, forward_operations, operations
from tasks.train.sizing.estimate import size
from tasks.train.sizing.lengths import Row
from tasks.train.sizing.probe import choose, measured, middle, shortened, steps_of
from tasks.train.sizing.workload import Workload, items, read_rows, workload_of


def test_a_probe_sees_the_longest_examples_and_others_of_all_lengths(job: TrainingJob) -> None:
    """Steps of four: the four longest of forty, and twelve spread over the others."""
    rows = [Row(1, (length,)) for length in range(40)]
    chosen = [row.answers[0] for row in choose(rows, job)]
    assert chosen[:4] == [39, 38, 37, 36]
    assert chosen[4:] == [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1]
    assert [row.answers[0] for row in middle(rows, 4)] == [5, 15, 25, 35]


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


def test_a_probe_of_kto_takes_no_more_prompts_than_its_steps_hold(preferring: Any) -> None:
    """Steps of four answers, three a prompt: two prompts for the first, three more for what is left of sixteen."""
    job = preferring("kto", prompts=12, batch_size=2)
    rows, _ = read_rows(job)
    chosen = choose(rows, job)
    assert (len(chosen), len(items(job, chosen))) == (5, 15)
    assert len(workload_of(job, chosen, []).steps) == 4


def seen(steps: list[float], validation: float | None = None) -> list[dict[str, Any]]:
    """What one process leaves: ten seconds from the first step to the end."""
    figures = {"steps": steps, "validation": validation, "saving": 0.5, "started": 100.0, "ended": 110.0}
    return [{**figures, "peak_bytes": 7}]


def test_rates_are_operations_over_seconds_and_the_first_step_warms_up(job: TrainingJob) -> None:
    """Three steps of one batch in 2 s each, a check in 4 s; another pass after the end is no part of starting."""
    training, batch = size(job).training, Batch(2, 8, 4)
    work = Workload(((batch,),) * 4, (batch,), 1, 8, 64, outside=(batch,))
    probe = measured(seen([9.0, 2.0, 2.0, 2.0], 4.0), training, work, around=30.0, update=0)
    assert probe.rate == pytest.approx(operations(training, batch) / 2.0)
    assert probe.check_rate == pytest.approx(forward_operations(training, batch) / 4.0)
    assert probe.startup == pytest.approx(30.0 - 10.0 - 4.0)


def test_answering_is_what_an_update_s_first_step_takes_more(online: Any) -> None:
    """Learning steps take 2 s, the second update's first 10 s: 8 answers, two a pass, judged in 16 passes in 8 s."""
    job = online("ppo")
    work = workload_of(job, [Row(40, (9,))] * 16, [])
    assert steps_of(job, work) == 9
    training, batch = size_of(job), work.largest
    probe = measured(seen([11.0] + [2.0] * 7 + [10.0]), training, work, around=30.0, update=8)
    assert probe.check_rate == pytest.approx(16 * forward_operations(training, batch) / 8.0)
    assert probe.rate == pytest.approx(operations(training, batch) * (7 * 2 + 10) / 24.0)


def test_a_probe_that_cannot_be_read_is_none(job: TrainingJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(subject, "_path", lambda job: tmp_path / "probe.json")
    assert subject.known_probe(job) is None
    (tmp_path / "probe.json").write_text('{"rate": ')
    assert subject.known_probe(job) is None


def size_of(job: TrainingJob) -> Any:
    from tasks.train.run.launch import read_launch
    from tasks.train.sizing.sized import training_of

    return training_of(job, read_launch("cpu"))
