"""The reward stage: loss and figures by hand, and one real run of two processes on a two-layer model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tasks.core.domain import load_domain
from tasks.core.params import load_params
from tasks.train.reward.ranking import collate, ranking_loss
from tasks.train.reward.stage import HeldOut, NoPreferences, calibration, describe, judged, losses, metrics_of
from tests.preferences import lay_alignment
from tests.training import run_stage


def nats(margin: float) -> float:
    """−log σ(margin)."""
    return math.log(1 + math.exp(-margin))


def test_a_prompt_s_pairs_count_as_one_in_the_mean_over_prompts() -> None:
    """Three answers of scores 3, 1, 0 ranked in full, margins 2, 3, 1; and one pair of margin −1."""
    scores = torch.tensor([3.0, 1.0, 0.0, 0.5, 1.5])
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2], [3, 4]])
    loss = ranking_loss(scores, pairs, torch.tensor([0, 0, 0, 1]))
    assert loss.item() == pytest.approx(((nats(2) + nats(3) + nats(1)) / 3 + nats(-1)) / 2, abs=1e-6)


def test_a_batch_has_a_row_an_answer_and_counts_on_through_its_prompts() -> None:
    rows = [
        {"sequences": [[5, 6], [5, 7, 8], [5]], "pairs": [[0, 1], [1, 2]]},
        {"sequences": [[9, 9], [9]], "pairs": [[1, 0]]},
    ]
    batch = {name: value.tolist() for name, value in collate(rows, 0).items()}
    assert batch == {
        "input_ids": [[5, 6, 0], [5, 7, 8], [5, 0, 0], [9, 9, 0], [9, 0, 0]],
        "attention_mask": [[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 0, 0]],
        "pairs": [[0, 1], [1, 2], [4, 3]],
        "prompts": [0, 0, 1],
    }


def margin(confidence: float) -> float:
    return math.log(confidence / (1 - confidence))


def test_calibration_compares_confidence_with_accuracy_bin_by_bin() -> None:
    """Four pairs of confidence 0.75 of which three are right (no error), one of 0.95 that is wrong (0.95)."""
    assert list(calibration([50.0])["reliability"]) == ["0.9-1.0"]
    found = calibration([margin(0.75)] * 3 + [-margin(0.75), -margin(0.95)])
    assert found["expected_calibration_error"] == pytest.approx(0.95 / 5)
    assert found["reliability"] == {
        "0.7-0.8": {"pairs": 4, "confidence": pytest.approx(0.75), "accuracy": 0.75},
        "0.9-1.0": {"pairs": 1, "confidence": pytest.approx(0.95), "accuracy": 0.0},
    }


def test_accuracy_is_a_mean_over_prompts_whose_pairs_depend_on_each_other() -> None:
    """Prompt one: one of two right. Prompt two: its only pair right. Over prompts 0.75, over pairs two thirds."""
    groups = [[HeldOut("a > b", 1.0, 3), HeldOut("a > c", -1.0, 0)], [HeldOut("a > b", 0.5, -2)]]
    found = judged(groups, seed=1)
    assert (found["prompts"], found["pairs"], found["accuracy"]) == (2, 3, 0.75)
    assert found["accuracy_by_kind"] == {"a > b": 1.0, "a > c": 0.0}
    assert found["longer_is_better"] == 0.5
    assert "accuracy_low" not in found, "two prompts give no interval"


def test_enough_prompts_give_an_interval_around_the_accuracy() -> None:
    groups = [[HeldOut("a > b", 1.0 if number % 4 else -1.0, 0)] for number in range(40)]
    found = judged(groups, seed=1)
    assert 0.5 < found["accuracy_low"] < found["accuracy"] == 0.75 < found["accuracy_high"] < 0.9


def test_the_last_values_of_the_curves_are_metrics_and_the_losses_are_drawn() -> None:
    result = {
        "history": [[0, "validation loss", 0.7], [1, "train loss", 0.6], [1, "train accuracy", 1.0]],
        "steps": 1,
        "held_out": [],
    }
    assert metrics_of(result, 1) == {"steps": 1, "train_loss": 0.6, "validation_loss": 0.7}
    assert losses(result["history"]) == [(0, "validation", 0.7), (1, "train", 0.6)]


def test_without_preferences_an_online_alignment_says_what_to_do(
    tmp_path: Path, root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = lay_alignment(tmp_path, root, tiny_model, {}, prompts=0)
    monkeypatch.chdir(folder)
    with pytest.raises(NoPreferences, match=r"preferences\.jsonl"):
        describe(load_params(), load_domain("construction"))


@pytest.mark.slow
def test_two_processes_train_a_reward_model_that_ranks_and_loads(tmp_path: Path, root: Path, tiny_model: Path) -> None:
    """Six prompts, one a process at a time: three steps an epoch. Its loaded scores are those it was judged by."""
    import torch
    from transformers import AutoTokenizer

    from tasks.core.records import Preference, read_own_jsonl
    from tasks.train.align.online.judging import load_reward_model
    from tasks.train.preference.rows import encode_groups

    settings = {"reward": {"epochs": 2, "batch_size": 1, "save_every": 4, "learning_rate": 1e-3}}
    folder = lay_alignment(tmp_path, root, tiny_model, {**settings, "align": {"alignment": "ppo"}}, held_out=5)
    metrics, _ = run_stage("reward", folder, root)
    assert (metrics["steps"], metrics["prompts"], metrics["pairs"]) == (6, 6, 12)
    rows = [line.split(",") for line in (folder / "reports/plots/reward_loss.csv").read_text().splitlines()[1:]]
    assert [step for step, split, _ in rows if split == "validation"] == ["0", "3", "6"]
    assert metrics["held_out"]["accuracy"] == 1.0 and metrics["validation_loss"] < float(rows[0][2])

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = load_reward_model(
        folder / "models/reward/adapter", folder / "data/base_model", torch.float32, tokenizer.pad_token_id
    )
    preferences = read_own_jsonl(folder / "data/pairs/validation.jsonl", Preference)
    system = (folder / "domains/construction/prompts/system.txt").read_text().strip()
    right = []
    for group in encode_groups(tokenizer, system, preferences, 512):
        alone = [torch.tensor([ids]) for ids in group.sequences]
        scores = [float(model(ids, torch.ones_like(ids))[0]) for ids in alone]
        right += [scores[better] > scores[worse] for better, worse in group.pairs]
    assert len(right) == metrics["held_out"]["pairs"] and all(right)
