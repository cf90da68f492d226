"""The estimate of a stage: exact lengths and steps, refusal before the first step, and what would fit instead."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.train.estimate_all import estimate
from tasks.train.linked_copy import changed, inside, link_copy
from tasks.train.run.job import TrainingJob
from tasks.train.sft.stage import describe
from tasks.train.sizing import sizing as subject
from tasks.train.sizing.estimate import CannotFit, estimate_of, on_gpu, preflight
from tasks.train.sizing.formula import operations
from tasks.train.sizing.machines import SHIPPED, gpu_bytes, read_prices
from tasks.train.sizing.probe import Probe, ProbeError
from tasks.train.sizing.sizing import GROWTH, Sizing, alternatives, size
from tasks.train.sizing.workload import Batch, RowSize, workload_of

PRICES = read_prices(SHIPPED)
PROBE = Probe(precision="fp32", startup=10.0, rate=1e9, forward_rate=1e9, saving=0.5, peak=3 << 29)
NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *memory.total*) echo 81559; echo 81559 ;;
  *memory.free*) echo 81000; echo 512 ;;
esac
"""


def test_what_cannot_fit_is_refused_before_it_starts_and_what_would_fit_is_said(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = size(job).needed
    monkeypatch.setattr(subject, "free_memory", lambda: needed - 1)
    with pytest.raises(
        CannotFit, match=r"sft cannot run here: it needs .* of main memory.*What would fit: "
    ) as refused:
        preflight(job)
    assert "sft.batch_size: 1 and sft.gradient_accumulation: 2" in str(refused.value)
    assert "1 × NVIDIA L4 24 GB" in str(refused.value)
    kept = json.loads((layout.MEASURED / "sft.predicted.json").read_text())
    assert kept["fits"] is False


def test_what_fits_is_predicted_and_kept(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subject, "free_memory", lambda: 1 << 40)
    found = preflight(job)
    assert found["fits"] and found["would_fit"] == [] and found["time"]["source"] == "formula"
    assert json.loads((layout.MEASURED / "sft.predicted.json").read_text()) == found
    assert capsys.readouterr().out.startswith("sft: 6 steps, about ")


def test_a_gpu_launch_without_gpus_says_so(job: TrainingJob) -> None:
    settings = job.settings.model_copy(update={"launch": "gpu8"})
    gpus = job.model_copy(update={"settings": settings, "processes": 8})
    if gpu_bytes("total"):
        pytest.skip("there is a GPU")
    found = estimate_of(size(gpus), PRICES)
    assert found["reasons"] == ["launch gpu8 needs GPUs, and there is none on this machine"]


def test_a_full_disk_is_told_before_it_is_full(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "disk_free", lambda: 1 << 20)
    assert estimate_of(size(job), PRICES)["reasons"][0].startswith("checkpoints need ")


def test_a_probe_replaces_the_formula_s_time_and_peak(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a billion operations a second the training takes its operations in seconds; two processes hold 3 GiB."""
    monkeypatch.setattr(subject, "known_probe", lambda job: PROBE)
    sizing = size(job)
    found = estimate_of(sizing, PRICES)
    computed = sum(operations(sizing.training, batch) for step in sizing.work.steps for batch in step)
    assert found["time"]["training"] == pytest.approx(computed / 1e9, abs=0.05)
    assert found["memory"]["needed"] == 2 * int((3 << 29) * GROWTH)
    assert found["memory"]["per_process"]["total"] == int((3 << 29) * GROWTH)


def test_a_probe_that_fails_leaves_the_formula_and_says_so(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Probe:
        raise ProbeError("sft: three steps to size it by could not be run: a worker died")

    monkeypatch.setattr(subject, "run_probe", failing)
    monkeypatch.setattr(subject, "in_doubt", lambda sizing: True)
    monkeypatch.setattr(subject, "free_memory", lambda: 1 << 40)
    found = preflight(job)
    assert found["fits"] and found["time"]["source"] == "formula"
    assert "a worker died; it is sized by formula alone" in caplog.text


@pytest.mark.parametrize(("free", "machines"), [(1 << 20, 1), (1 << 40, 2)])
def test_what_cannot_run_here_and_what_would_wait_for_other_machines_is_not_probed(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, free: int, machines: int
) -> None:
    launch = {**subject.read_launch("cpu"), "num_machines": machines}
    monkeypatch.setattr(subject, "read_launch", lambda name: launch)
    monkeypatch.setattr(subject, "run_probe", lambda *_: pytest.fail("it was probed"))
    monkeypatch.setattr(subject, "free_memory", lambda: free)
    assert size(job, "always").probe is None


def test_a_launch_of_more_gpus_than_there_are_says_so(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two GPUs another process holds most of the second, and what is free there counts."""
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_bytes("total") == [81559 << 20] * 2
    settings = job.settings.model_copy(update={"launch": "gpu8"})
    gpus = size(job.model_copy(update={"settings": settings, "processes": 8}))
    few, full = subject.problems(gpus)
    assert few == "launch gpu8 needs 8 GPUs, and this machine has 2"
    assert full.endswith("on each GPU, and 0.5 GiB are free")


def test_a_hired_gpu_is_paid_for_validating_too(job: TrainingJob) -> None:
    """Two processes' three validations of one batch on one GPU: 6 passes at 0.3 × 10⁷ operations a second."""
    prices = PRICES.model_copy(update={"gpu_layer_milliseconds": 0.0, "gpu_utilisation": 0.3})
    gpu = prices.gpus[0].model_copy(update={"bf16_tflops": 1e-5})
    batch, sizing = Batch(1, 16, 8), size(job)
    none, three = (replace(sizing, work=replace(sizing.work, forward=(batch,) * count)) for count in (0, 3))
    more = on_gpu(three, gpu, prices)["seconds"] - on_gpu(none, gpu, prices)["seconds"]
    assert more == pytest.approx(6 * operations(sizing.training, batch, backward=False) / 3e6, abs=0.11)


def sizing_of(job: TrainingJob, rows: list[RowSize]) -> Sizing:
    training = subject.training_of(job, subject.read_launch(job.settings.launch))
    return Sizing(job, training, workload_of(job, rows, []), rows, [], 1)


def offered(sizing: Sizing) -> list[str]:
    return [words for words, _ in alternatives(sizing)]


def test_the_online_methods_are_offered_no_accumulation(online: Any) -> None:
    """They refuse it."""
    words = offered(sizing_of(online("ppo"), [RowSize(40, (9,))] * 16))
    assert words[0] == "align.batch_size: 1"
    assert not any("gradient_accumulation" in entry for entry in words)


def test_kto_keeps_two_answers_a_batch(preferring: Any) -> None:
    words = offered(size(preferring("kto", batch_size=4)))
    assert words[0] == "align.batch_size: 2 and align.gradient_accumulation: 2"
    assert not any("batch_size: 1" in entry for entry in words)


def test_a_smaller_batch_of_packed_rows_is_planned_anew(job: TrainingJob) -> None:
    """Ten examples, one a process: the largest row is the longest example, and what it fills is its length."""
    sizing = sizing_of(job, list(size(job).rows[:10]))
    words, other = next(alternatives(sizing))
    assert words == "sft.batch_size: 1 and sft.gradient_accumulation: 2"
    assert (other.work.largest.rows, other.work.largest.filled) == (1, max(row.longest for row in sizing.rows))
    assert other.needed < sizing.needed


def test_what_a_probe_found_is_carried_over_to_another_number_of_processes(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process took 3 GiB × 1.1 where the formula said less; so much more is added to one process of its own."""
    plain = dict(alternatives(size(job)))["sft.launch: cpu1"]
    monkeypatch.setattr(subject, "known_probe", lambda job: PROBE)
    sizing = size(job)
    one = dict(alternatives(sizing))["sft.launch: cpu1"]
    assert one.needed - plain.needed == int(PROBE.peak * GROWTH) - (sizing.memory["total"] - sizing.unexplained)


def test_zero_3_is_not_offered_to_methods_that_need_whole_weights(job: TrainingJob) -> None:
    section = load_params().methods.osf
    settings = job.settings.model_copy(update={"method": "osf", "packing": False})
    words = offered(size(job.model_copy(update={"settings": settings, "method": section.model_dump()})))
    assert "sft.launch: cpu_zero1" in words
    assert not any("zero3" in entry for entry in words)


def test_the_whole_estimate_keeps_to_its_schema_and_touches_no_output(
    root: Path, workspace: Any, tmp_path: Path
) -> None:
    import jsonschema

    folder = workspace()
    before = sorted(path for path in folder.rglob("*") if ".flywheel" not in path.parts)
    found = estimate(folder, probe="known", changes={"sft.epochs": 1})
    schema = json.loads((root / "docs/schemas/estimate.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    assert [row["stage"] for row in found["stages"]] == ["sft"]
    assert sorted(path for path in folder.rglob("*") if ".flywheel" not in path.parts) == before


def test_settings_are_changed_by_name_and_unknown_ones_refused() -> None:
    settings = {"sft": {"epochs": 2}}
    assert changed(settings, {"sft.epochs": 3}) == {"sft": {"epochs": 3}}
    assert settings == {"sft": {"epochs": 2}}
    with pytest.raises(KeyError):
        changed(settings, {"sft.epoch": 3})


@pytest.mark.slow
def test_three_real_steps_are_timed_and_leave_nothing_behind(job: TrainingJob) -> None:
    """Two processes on a two-layer model; the second sizing finds the probe without running it."""
    sizing = size(job, "always")
    assert sizing.probe is not None and sizing.probe.rate > 0 and sizing.probe.peak > 0
    assert estimate_of(sizing, PRICES)["time"]["source"] == "probe"
    assert not list((layout.HOME / "probe").iterdir()) and not layout.SFT.exists()
    assert size(job).probe == sizing.probe


def test_a_copy_of_links_takes_other_settings(workspace: Any, tmp_path: Path) -> None:
    folder = workspace()
    copy = link_copy(folder, tmp_path / "copy", {"seed": 7}, keep_trained=False)
    with inside(copy):
        assert load_params().seed == 7
        assert describe(load_params(), load_domain("construction")).seed == 7
    assert load_params(folder / "params.yaml").seed == 42
