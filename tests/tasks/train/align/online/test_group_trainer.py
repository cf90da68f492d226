"""What ours add to TRL's trainers: prompts as they are encoded everywhere, and scores a few answers at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.train.align.online.group_trainer import build, scorer
from tasks.train.align.online.judging import OutOfBounds
from tests import online_toy as toy
from tests.online_jobs import online_job

BEGIN = 9  # a word that stands for a token of the beginning


def beginning_tokenizer() -> Any:
    """One that puts a token before every text by itself, as those of Gemma and Llama do."""
    from tokenizers.processors import TemplateProcessing

    made = toy.tokenizer()
    made.backend_tokenizer.post_processor = TemplateProcessing(single="w7 $A", special_tokens=[("w7", BEGIN)])
    return made


@pytest.fixture(params=["rloo", "grpo"])
def trainer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """One that is about to train, with that tokenizer."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.chdir(tmp_path)
    job = online_job(tmp_path, {"alignment": request.param, "rollout": {"updates": 1}})
    return build(job, tmp_path / "run", beginning_tokenizer(), toy.prompts(), toy.earned)


def test_prompts_reach_the_policy_with_no_token_put_before_them(trainer: Any) -> None:
    asked = [row["prompt"] for row in trainer.train_dataset]
    encoded, *_ = trainer._tokenize_prompts(asked)
    assert beginning_tokenizer()("w1")["input_ids"] == [BEGIN, 3]
    assert encoded == toy.prompts()


def test_scores_a_few_at_a_time_are_those_of_all_at_once() -> None:
    """Walks of two, one and three steps by hand from the table, whatever is scored beside them."""
    table = toy.table()
    seen: list[tuple[int, int]] = []

    def reward(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append((tokens.shape[0], tokens.shape[1]))
        return toy.earned(tokens, mask)

    asked, answers = ["1", "0", "1"], [[4, 5], [6], [7, 8, 9]]
    expected = [table[3, 4] + table[4, 5], table[2, 6], table[3, 7] + table[7, 8] + table[8, 9]]
    found = scorer(reward, toy.prompts(), toy.PAD, 2, torch.device("cpu"))(prompts=asked, completion_ids=answers)
    assert found == pytest.approx([float(one) for one in expected])
    assert seen == [(2, 3), (1, 4)]
    at_once = scorer(reward, toy.prompts(), toy.PAD, 3, torch.device("cpu"))
    assert at_once(prompts=asked, completion_ids=answers) == pytest.approx(found)
    assert seen[2:] == [(3, 4)]


def test_a_policy_with_a_weight_that_is_no_number_does_not_begin_to_answer(trainer: Any) -> None:
    trainer.policy.lm_head.weight.data[0, 0] = torch.nan
    with pytest.raises(OutOfBounds, match="not finite"):
        trainer.train()
    assert trainer.state.global_step == 0
