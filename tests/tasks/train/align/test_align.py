"""DPO and KTO: figures by hand, the reference's log-probabilities, and real runs of two processes."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_json, write_manifest
from tasks.core.params import load_params
from tasks.train.align.stage import OnlineJob, PreferenceJob, describe, metrics_of
from tasks.train.align.trainers import add_reference, log_probability
from tasks.train.align.worker import PreferenceSettings, balanced, model_beside_reference, rows_of
from tasks.train.reward.stage import NoPreferences
from tests.preferences import lay_alignment, write_adapter
from tests.training import run_stage


def described(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    return describe(load_params(), load_domain("construction"))


def test_an_online_alignment_needs_the_reward_model(
    tmp_path: Path, root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_alignment(tmp_path, root, tiny_model, {"align": {"alignment": "ppo"}})
    (folder / "data/mix/train.jsonl").write_text("{}\n")
    write_json(folder / "models/reward/none/why.json", {"why": "test"})
    write_manifest(folder / "models/reward/none")
    with pytest.raises(NoPreferences, match="dvc repro reward"):
        described(folder, monkeypatch)
    (folder / "models/reward/none").rename(folder / "models/reward/adapter")
    job = described(folder, monkeypatch)
    assert isinstance(job, OnlineJob)
    assert (job.reward, job.reward_base) == (layout.REWARD / "adapter", layout.BASE_MODEL)


def test_the_first_and_the_last_value_of_each_curve_are_metrics() -> None:
    result = {"steps": 2, "history": [[0, "validation loss", 0.7], [1, "kl", 0.1], [2, "validation loss", 0.5]]}
    losses = {"validation_loss_before": 0.7, "validation_loss": 0.5}
    assert metrics_of(result) == {"steps": 2, **losses, "kl_before": 0.1, "kl": 0.1}


def test_kto_weighs_the_rarer_kind_of_answer_more() -> None:
    """One good of four: three times as much; the setting multiplies that."""
    rows = [{"label": True}] + [{"label": False}] * 3
    assert balanced(rows, 1.0, 1.0) == (3.0, 1.0)
    assert balanced(rows, 0.5, 2.0) == (1.5, 2.0)
    with pytest.raises(PreferenceSettings, match="not"):
        balanced([{"label": True}], 1.0, 1.0)


def test_kto_refuses_one_row_at_a_time(
    tmp_path: Path, root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    folder = lay_alignment(tmp_path, root, tiny_model, {"align": {"alignment": "kto", "batch_size": 1}})
    job = described(folder, monkeypatch)
    with pytest.raises(PreferenceSettings, match="batch_size of 2"):
        rows_of(job, AutoTokenizer.from_pretrained(tiny_model), "train")


@pytest.mark.slow
def test_two_processes_align_by_dpo_from_the_sft_policy(tmp_path: Path, root: Path, tiny_model: Path) -> None:
    """Twelve pairs, two processes of two: three steps an epoch. Before the first step the policy is its reference:

    margins of nought, so a loss of log 2. Were the reference the base model, which the SFT adapter of noise is far
    from, the first margins would not be nought.
    """
    settings = {"align": {"alignment": "dpo", "epochs": 2, "save_every": 4, "learning_rate": 1e-3}}
    folder = lay_alignment(tmp_path, root, tiny_model, settings, adapter=True)
    metrics, _ = run_stage("align", folder, root)
    assert (metrics["steps"], metrics["rows"], metrics["held_out_rows"]) == (6, 12, 6)
    assert metrics["validation_loss_before"] == pytest.approx(math.log(2), abs=1e-4)
    assert metrics["validation_margin_before"] == pytest.approx(0, abs=1e-4)
    assert metrics["validation_loss"] < 0.5 and metrics["validation_accuracy"] == 1.0
    files = sorted(path.name for path in (folder / "models/align/adapter").iterdir())
    assert files == ["MANIFEST.json", "adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.slow
def test_two_processes_align_every_weight_by_kto(tmp_path: Path, root: Path, small: Path) -> None:
    """Before the first step every log-ratio and the KL are nought: each loss is weight × (1 − σ(0)), half its weight.

    One good answer a prompt and two worse: weights 2 and 1, whose mean over the held-out rows is (2 + 1 + 1) / 3.
    """
    settings = {"align": {"alignment": "kto", "method": "full", "save_every": 50, "learning_rate": 1e-4}}
    folder = lay_alignment(tmp_path, root, small, settings, held_out=4, adapter=True)
    metrics, _ = run_stage("align", folder, root)
    assert metrics["validation_loss_before"] == pytest.approx(0.5 * 4 / 3, abs=1e-3)
    assert metrics["validation_loss"] < metrics["validation_loss_before"]
    assert (folder / "models/align/model/model.safetensors").is_file()
    assert (folder / "models/align/model/tokenizer.json").is_file()


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


ALONE = SimpleNamespace(world_size=1, process_index=0, device=torch.device("cpu"))


def test_it_is_the_sum_over_the_answer_s_tokens(model: Any) -> None:
    """transformers' own loss is the mean negative log-likelihood of the tokens whose label is not -100."""
    ids = torch.tensor([[1, 50, 60, 70, 80]])
    loss = model(input_ids=ids, labels=torch.tensor([[-100, -100, -100, 70, 80]])).loss
    assert log_probability(model, (1, 50, 60), (70, 80)) == pytest.approx(-2 * loss.item(), abs=1e-4)


def test_every_answer_of_a_row_gets_its_own(model: Any) -> None:
    rows = [{"prompt_ids": [1, 50], "chosen_ids": [60], "rejected_ids": [70, 80]}]
    add_reference(model, rows, ALONE)
    assert rows[0]["ref_chosen_logps"] == log_probability(model, (1, 50), (60,))
    assert rows[0]["ref_rejected_logps"] == log_probability(model, (1, 50), (70, 80))


def test_a_process_scores_its_share_and_reads_the_others(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three answers in two processes: the second scores the second one, and is told of all."""
    rows = [{"prompt_ids": [1], "completion_ids": [number]} for number in (60, 61, 62)]
    shared: list[Any] = []

    def gather(mine: list[Any]) -> list[Any]:
        shared.extend(mine)
        return [(((1,), (number,)), float(number)) for number in (60, 61, 62)]

    monkeypatch.setattr("tasks.train.align.trainers.gather_object", gather)
    add_reference(model, rows, SimpleNamespace(world_size=2, process_index=1, device=torch.device("cpu")))
    assert shared == [(((1,), (61,)), log_probability(model, (1,), (61,)))]
    assert [row["ref_logps"] for row in rows] == [60.0, 61.0, 62.0]


def test_a_night_is_held_to_the_first_champion_of_its_line_and_not_to_where_it_begins(
    tmp_path: Path, root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = lay_alignment(tmp_path, root, tiny_model, {"align": {"alignment": "dpo"}}, adapter=True)
    write_adapter(folder / "data/start/reference/adapter", tiny_model, scale=0.2)
    write_manifest(folder / "data/start")
    monkeypatch.chdir(folder)
    job = describe(load_params(), load_domain("construction"))
    assert isinstance(job, PreferenceJob) and set(job.data) == {"train", "validation"}
    assert (job.base_model, job.start) == (layout.BASE_MODEL, layout.SFT / "adapter")
    job = job.model_copy(update={"settings": job.settings.model_copy(update={"precision": "fp32"})})
    rows = [{"prompt_ids": [1, 50], "chosen_ids": [60], "rejected_ids": [70, 80]}]
    policy = model_beside_reference(job, rows, ALONE)

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    first = PeftModel.from_pretrained(base, folder / "data/start/reference/adapter").eval()
    assert rows[0]["ref_chosen_logps"] == pytest.approx(log_probability(first, (1, 50), (60,)), abs=1e-4)
    assert abs(rows[0]["ref_chosen_logps"] - log_probability(policy.eval(), (1, 50), (60,))) > 1e-3  # type: ignore[operator]
