"""The estimate of a stage: exact lengths and steps, refusal before the first step, and what would fit instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks import layout
from tasks.domain import load_domain
from tasks.params import load_params
from tasks.records import Example, read_own_jsonl
from tasks.train.job import TrainingJob
from tasks.train.sft import describe
from tasks.train.sizing import estimate as subject
from tasks.train.sizing.aside import changed, inside, lay_aside
from tasks.train.sizing.demand import Batch
from tasks.train.sizing.estimate import CannotFit, estimate_of, preflight, size
from tasks.train.sizing.estimate_all import estimate
from tasks.train.sizing.lengths import Counter, Row
from tasks.train.sizing.machines import read_prices
from tasks.train.sizing.probe import Probe, choose, middle, shortened, steps_of
from tasks.train.sizing.workload import read_rows, workload_of
from tasks.train.tuning.batches import encode_rows, plan_epoch


@pytest.fixture
def job(workspace: Any, monkeypatch: pytest.MonkeyPatch) -> TrainingJob:
    """A job of eleven examples, two processes, batches of two, in its own repository."""
    monkeypatch.chdir(workspace(batch_size=2, epochs=2, precision="fp32"))
    return describe(load_params(), load_domain("construction"))


PRICES = read_prices()


def test_lengths_are_those_that_training_encodes(job: TrainingJob) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.base_model)
    encoded = encode_rows(tokenizer, job.system, read_own_jsonl(job.data["train"], Example), 512)
    expected = (
        [sum(label == -100 for label in row["labels"]) for row in encoded],
        [len(row["labels"]) for row in encoded],
    )
    rows = Counter(job.base_model, job.system).rows(job.data["train"])
    assert ([row.prompt for row in rows], [row.longest for row in rows]) == expected


def test_the_steps_are_those_that_training_plans(job: TrainingJob) -> None:
    """Eleven examples in steps of at most four: three steps an epoch; the largest batch is the longest pair's."""
    rows = Counter(job.base_model, job.system).rows(job.data["train"])
    work = workload_of(job, rows, [])
    assert (len(work.steps), work.examples, work.validations) == (6, 11, 0)
    assert work.tokens == 2 * sum(row.longest for row in rows)
    lengths = [row.longest for row in rows]
    plan = plan_epoch(lengths, 2, 2, job.seed, 0)
    assert work.steps[0][0].tokens == max(lengths[i] for hand in plan[0] for i in hand)


def test_accumulated_batches_make_one_step(job: TrainingJob) -> None:
    settings = job.settings.model_copy(update={"gradient_accumulation": 2})
    work = workload_of(job.model_copy(update={"settings": settings}), [Row(5, (3,))] * 11, [])
    assert [len(step) for step in work.steps] == [2, 1, 2, 1]


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
    if subject.gpu_memory():
        pytest.skip("there is a GPU")
    found = estimate_of(size(gpus), PRICES)
    assert found["reasons"] == ["launch gpu8 needs GPUs, and there is none on this machine"]


def test_a_full_disk_is_told_before_it_is_full(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "disk_free", lambda: 1 << 20)
    assert estimate_of(size(job), PRICES)["reasons"][0].startswith("checkpoints need ")


def test_a_probe_replaces_the_formula_s_time_and_peak(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a billion operations a second the training takes its operations in seconds; two processes hold 3 GiB."""
    probe = Probe(
        startup=10.0, rate=1e9, check_rate=1e9, saving=0.5, peak=3 << 29, peak_total=3 << 30, largest_positions=1
    )
    monkeypatch.setattr(subject, "known_probe", lambda job: probe)
    sizing = size(job)
    found = estimate_of(sizing, PRICES)
    operations = sum(subject.operations(sizing.training, batch) for step in sizing.work.steps for batch in step)
    assert found["time"]["training"] == pytest.approx(operations / 1e9, abs=0.05)
    assert found["memory"]["needed"] == int((3 << 30) * subject.GROWTH)
    assert found["memory"]["per_process"]["total"] == int((3 << 29) * subject.GROWTH)


def test_a_probe_sees_the_longest_examples_and_others_of_all_lengths(job: TrainingJob) -> None:
    """Steps of four: the four longest of forty, and twelve spread over the others."""
    rows = [Row(1, (length,)) for length in range(40)]
    chosen = choose(rows, job)
    assert chosen == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 36, 37, 38, 39]
    assert middle(rows, 4) == [5, 15, 25, 35]


def test_a_probe_s_job_is_one_epoch_of_its_own_examples(job: TrainingJob, tmp_path: Path) -> None:
    small = shortened(job, tmp_path / "probe", [1, 4], [0])
    lines = job.data["train"].read_text().splitlines()
    assert small.data["train"].read_text().splitlines() == [lines[1], lines[4]]
    assert len(small.data["validation"].read_text().splitlines()) == 1
    assert (small.settings.epochs, small.settings.max_restarts) == (1, 0)
    assert job.data["train"].read_text().splitlines() == lines


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
    assert sizing.probe is not None and sizing.probe.rate > 0 and sizing.probe.peak_total > sizing.probe.peak
    assert estimate_of(sizing, PRICES)["time"]["source"] == "probe"
    assert not list((layout.HOME / "probe").iterdir()) and not layout.SFT.exists()
    assert size(job).probe == sizing.probe


def test_a_copy_of_links_takes_other_settings(workspace: Any, tmp_path: Path) -> None:
    folder = workspace()
    copy = lay_aside(folder, tmp_path / "copy", {"seed": 7}, keep_trained=False)
    with inside(copy):
        assert load_params().seed == 7
        assert describe(load_params(), load_domain("construction")).seed == 7
    assert load_params(folder / "params.yaml").seed == 42


def test_an_online_update_answers_in_its_first_step(job: TrainingJob) -> None:
    """16 prompts, 2 processes: 8 answers each, 2 minibatches of 4, two answers a forward pass, 4 passes.

    So 8 steps an update, each of 2 forward passes, and in the first of them twice 4 more; a probe takes 8 + 1 steps.
    """
    align: Any = load_params().align
    rollout = align.rollout.model_copy(update={"updates": 3})
    online = job.model_copy(update={"settings": align.model_copy(update={"alignment": "ppo", "rollout": rollout})})
    work = workload_of(online, [Row(40, (9,))] * 16, [])
    assert [len(step) for step in work.steps] == [10, 2, 2, 2, 2, 2, 2, 2] * 3
    assert work.largest == Batch(rows=2, tokens=40 + 32, scored=32)
    assert steps_of(online, 16) == 9


def test_pretraining_is_full_rows_of_documents_and_general_text(job: TrainingJob, tmp_path: Path) -> None:
    """D tokens of documents at a ratio of 5 make 6 D in all, in rows of 512, of which one in twenty is held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": ["building permit " * 100] * 10}), tmp_path / "documents.parquet")
    settings = load_params().pretrain
    other = job.model_copy(update={"settings": settings, "data": {"documents": tmp_path / "documents.parquet"}})
    tokens = Counter(job.base_model, "").texts(tmp_path / "documents.parquet")
    learnt, held = read_rows(other)
    assert len(learnt) + len(held) == round(tokens * 6 / 512)
    assert set(learnt) == {Row(0, (512,))} and len(held) == (len(learnt) + len(held)) // 20
