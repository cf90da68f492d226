"""The reference's log-probabilities: against a plain forward pass, and read again instead of computed again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.core import layout
from tasks.core.domain import load_domain
from tasks.core.files import write_manifest
from tasks.core.params import load_params
from tasks.train.align.stage import PreferenceJob, describe
from tasks.train.align.trainers import add_reference, log_probability
from tasks.train.align.worker import model_beside_reference
from tests.preferences import lay_alignment, write_adapter


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
    assert isinstance(job, PreferenceJob) and job.start == layout.SFT / "adapter"
    job = job.model_copy(update={"settings": job.settings.model_copy(update={"precision": "fp32"})})
    rows = [{"prompt_ids": [1, 50], "chosen_ids": [60], "rejected_ids": [70, 80]}]
    policy = model_beside_reference(job, rows, ALONE)

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    first = PeftModel.from_pretrained(base, folder / "data/start/reference/adapter").eval()
    assert rows[0]["ref_chosen_logps"] == pytest.approx(log_probability(first, (1, 50), (60,)), abs=1e-4)
    assert abs(rows[0]["ref_chosen_logps"] - log_probability(policy.eval(), (1, 50), (60,))) > 1e-3  # type: ignore[operator]
