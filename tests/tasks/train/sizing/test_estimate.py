"""The estimate of a stage: what cannot run here, what would, what it takes; and the estimate of all stages."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.core import layout
from tasks.core.hardware import gpu_bytes
from tasks.core.params import load_params
from tasks.core.prices import SHIPPED, read_prices
from tasks.train.estimate_all import estimate
from tasks.train.linked_copy import changed, inside, link_copy
from tasks.train.run.job import TrainingJob
from tasks.train.sizing import estimate as subject
from tasks.train.sizing.estimate import estimate_of, on_gpu, problems, size
from tasks.train.sizing.formula import GROWTH, Probe, operations
from tasks.train.sizing.probe import ProbeError

PRICES = read_prices(SHIPPED)
PROBE = Probe(precision="fp32", startup=10.0, speed=1e9, saving=0.5, peak=3 << 29, explained=1 << 30)
NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *memory.total*) echo 81559; echo 81559 ;;
  *memory.free*) echo 81000; echo 512 ;;
esac
"""


def estimated(job: TrainingJob) -> dict[str, Any]:
    return estimate_of(job, size(job), PRICES)


def with_settings(job: TrainingJob, processes: int = 2, **changes: Any) -> TrainingJob:
    return job.model_copy(update={"settings": job.settings.model_copy(update=changes), "processes": processes})


def test_what_would_fit_is_said_of_what_cannot(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = size(job).needed
    monkeypatch.setattr(subject, "free_memory", lambda: needed - 1)
    found = estimated(job)
    assert not found["fits"] and "of main memory" in found["reasons"][0]
    assert found["would_fit"][:2] == ["sft.batch_size: 1 and sft.gradient_accumulation: 2", "1 × NVIDIA L4 24 GB"]


def test_lora_is_offered_in_place_of_every_weight(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    section = load_params().methods.full
    full = with_settings(job, method="full").model_copy(update={"method": section.model_dump()})
    needed = size(full).needed
    monkeypatch.setattr(subject, "free_memory", lambda: needed - 1)
    assert "sft.method: lora" in estimated(full)["would_fit"]


@pytest.mark.parametrize(
    ("alignment", "offered"),
    [("ppo", "align.batch_size: 1"), ("kto", "align.batch_size: 2 and align.gradient_accumulation: 2")],
)
def test_a_smaller_batch_is_one_that_the_method_takes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, alignment: str, offered: str
) -> None:
    """The online methods refuse to accumulate, and KTO a batch of one answer."""
    build = request.getfixturevalue("online" if alignment == "ppo" else "preferring")
    reported = iter([["too much"], []])
    monkeypatch.setattr(subject, "problems", lambda *_: next(reported))
    assert estimated(build(alignment, batch_size=4))["would_fit"][0] == offered


def test_a_gpu_launch_without_gpus_says_so(job: TrainingJob) -> None:
    if gpu_bytes("total"):
        pytest.skip("there is a GPU")
    found = estimated(with_settings(job, 8, launch="gpu8"))
    assert found["reasons"] == ["launch gpu8 needs GPUs, and there is none on this machine"]


def test_a_launch_of_more_gpus_than_there_are_says_so(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two GPUs another process holds most of the second, and what is free there counts."""
    (tmp_path / "nvidia-smi").write_text(NVIDIA_SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gpu_bytes("total") == [81559 << 20] * 2
    gpus = with_settings(job, 8, launch="gpu8")
    few, full = problems(gpus, size(gpus))
    assert few == "launch gpu8 needs 8 GPUs, and this machine has 2"
    assert full.endswith("on each GPU, and 0.5 GiB are free")


def test_a_full_disk_is_told_before_it_is_full(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "disk_free", lambda: 1 << 20)
    assert estimated(job)["reasons"][0].startswith("checkpoints need ")


def test_a_probe_replaces_the_formula_s_time_and_peak(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a billion operations a second; two processes hold 1.5 GiB each, of which the formulas expected 1 GiB."""
    formula = size(job)
    monkeypatch.setattr(subject, "known_probe", lambda job: PROBE)
    found, work = estimated(job), formula.work
    computed = work.learnt * operations(formula) + work.looked * operations(formula, backward=False)
    assert found["time"]["seconds"] == pytest.approx(10.0 + work.saves * 0.5 + computed / 1e9, abs=0.06)
    assert found["memory"]["needed"] == formula.needed + 2 * (int((3 << 29) * GROWTH) - (1 << 30))


def test_a_probe_that_fails_leaves_the_formula_and_says_so(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Probe:
        raise ProbeError("sft: three steps to size it by could not be run: a worker died")

    monkeypatch.setattr(subject, "run_probe", failing)
    monkeypatch.setattr(subject, "free_memory", lambda: 1 << 40)
    assert size(job, "doubt").probe is None and not caplog.text  # short and small: no doubt
    assert size(job, "always").probe is None
    assert "a worker died; it is sized by formula alone" in caplog.text


@pytest.mark.parametrize(("free", "machines"), [(1 << 20, 1), (1 << 40, 2)])
def test_what_cannot_run_here_and_what_would_wait_for_other_machines_is_not_probed(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, free: int, machines: int
) -> None:
    formula = replace(size(job), machines=machines)
    monkeypatch.setattr(subject, "sizing_of", lambda job: formula)
    monkeypatch.setattr(subject, "run_probe", lambda *_: pytest.fail("it was probed"))
    monkeypatch.setattr(subject, "free_memory", lambda: free)
    assert size(job, "always").probe is None


def test_a_hired_gpu_is_paid_for_validating_too(job: TrainingJob) -> None:
    """Two processes' 3000 tokens each on one GPU: 6000 at 0.3 × 10⁷ operations a second."""
    prices = PRICES.model_copy(update={"gpu_layer_milliseconds": 0.0, "gpu_utilisation": 0.3})
    gpu = prices.gpus[0].model_copy(update={"bf16_tflops": 1e-5})
    sizing = size(job)
    none, some = (replace(sizing, work=sizing.work._replace(looked=tokens)) for tokens in (0, 3000))
    more = on_gpu(some, gpu, prices)["seconds"] - on_gpu(none, gpu, prices)["seconds"]
    assert more == pytest.approx(6000 * operations(sizing, backward=False) / 3e6, abs=0.11)


def test_the_whole_estimate_keeps_to_its_schema_and_touches_no_output(root: Path, workspace: Any) -> None:
    import jsonschema

    folder = workspace()
    before = sorted(path for path in folder.rglob("*") if ".flywheel" not in path.parts)
    found = estimate(folder, probe="known", changes={"sft.epochs": 1})
    schema = json.loads((root / "docs/schemas/estimate.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    assert [row["stage"] for row in found["stages"]] == ["sft"]
    assert sorted(path for path in folder.rglob("*") if ".flywheel" not in path.parts) == before


@pytest.mark.slow
def test_three_real_steps_are_timed_and_leave_nothing_behind(
    root: Path, job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes on a two-layer model; the second sizing finds the probe without running it."""
    monkeypatch.setenv("PYTHONPATH", str(root))  # they run this code, whatever is installed
    sizing = size(job, "always")
    assert sizing.probe is not None and sizing.probe.speed > 0 and sizing.probe.peak > 0
    assert not list((layout.HOME / "probe").iterdir()) and not layout.SFT.exists()
    assert size(job).probe == sizing.probe
    assert estimated(job)["time"]["source"] == "probe"


def test_a_copy_of_links_takes_other_settings(workspace: Any, tmp_path: Path) -> None:
    folder = workspace()
    with inside(link_copy(folder, tmp_path / "copy", {"seed": 7}, keep_trained=False)):
        assert load_params().seed == 7
    assert load_params(folder / "params.yaml").seed == 42
    with pytest.raises(KeyError):
        changed({"sft": {"epochs": 2}}, {"sft.epoch": 3})
