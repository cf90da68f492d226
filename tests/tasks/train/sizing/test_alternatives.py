"""What a refusal offers: only what the stage would accept, sized as it would be."""

from __future__ import annotations

from typing import Any

from tasks.train.run.job import TrainingJob
from tasks.train.run.launch import read_launch
from tasks.train.sizing.alternatives import alternatives
from tasks.train.sizing.estimate import size
from tasks.train.sizing.lengths import Row
from tasks.train.sizing.probe import Probe
from tasks.train.sizing.sized import Sizing, training_of
from tasks.train.sizing.workload import workload_of


def sizing_of(job: TrainingJob, rows: list[Row], probe: Probe | None = None) -> Sizing:
    training = training_of(job, read_launch(job.settings.launch))
    return Sizing(job, training, workload_of(job, rows, []), 1, probe, tuple(rows), ())


def offered(sizing: Sizing) -> list[str]:
    return [words for words, _ in alternatives(sizing)]


def test_the_online_methods_are_offered_no_accumulation(online: Any) -> None:
    """They refuse it; and of three processes' launches those that their 16 prompts can be shared among."""
    words = offered(sizing_of(online("ppo"), [Row(40, (9,))] * 16))
    assert words[0] == "align.batch_size: 1"
    assert not any("gradient_accumulation" in entry for entry in words)


def test_kto_keeps_two_answers_a_batch(preferring: Any) -> None:
    words = offered(size(preferring("kto", batch_size=4)))
    assert words[0] == "align.batch_size: 2 and align.gradient_accumulation: 2"
    assert not any("batch_size: 1" in entry for entry in words)


def test_a_smaller_batch_of_packed_rows_is_planned_anew(job: TrainingJob) -> None:
    """Ten examples, one a process: the largest row is the longest example, and what it fills is its length."""
    sizing = sizing_of(job, list(size(job).rows[:10]))
    longest = max(row.longest for row in sizing.rows)
    words, other = next(alternatives(sizing))
    assert words == "sft.batch_size: 1 and sft.gradient_accumulation: 2"
    assert (other.work.largest.rows, other.work.largest.filled) == (1, longest)
    assert other.needed < sizing.needed


def test_a_probe_s_peak_is_carried_over_to_another_number_of_processes(job: TrainingJob) -> None:
    """Two processes held 4 GiB; one holds half of that, and what the formulas move."""
    probe = Probe(startup=1, rate=1e9, check_rate=1e9, saving=0, peak=2 << 30, peak_total=4 << 30, largest_positions=1)
    sizing = sizing_of(job, [Row(5, (3,))] * 11, probe)
    one = dict(alternatives(sizing))["sft.launch: cpu1"].probe
    assert one is not None and one.peak_total == one.peak


def test_zero_3_is_not_offered_to_methods_that_need_whole_weights(job: TrainingJob) -> None:
    from tasks.core.params import load_params

    section = load_params().methods.osf
    settings = job.settings.model_copy(update={"method": "osf", "packing": False})
    osf = job.model_copy(update={"settings": settings, "method": section.model_dump()})
    words = offered(size(osf))
    assert "sft.launch: cpu_zero1" in words
    assert not any("zero3" in entry for entry in words)
