"""Golden scores: shared passes give what passing every pair by itself gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.core.records import Example
from tasks.curate.select.nuggets import Golden, Judge, choose_tasks, golden_scores
from tasks.text.likelihood import answer_losses
from tests.examples import an_example


def example(number: int, **fields: Any) -> Example:
    """Questions and answers of different lengths, the third with characters of several tokens."""
    words = ["wall", "roof", "许可证需要十周", "cellar", "drain"]
    said = " ".join(words[: number % 4 + 1]) + f" {number}."
    return an_example(f"Ask {number} about a {words[number % 5]}?", said, **fields)


EXAMPLES = [example(number) for number in range(6)]
TASKS = [example(number) for number in range(4, 13)]


@pytest.fixture(scope="module")
def judge(base_model: Path) -> Judge:
    """The real tokenizer, and a model of two narrow layers with large random weights, so that its losses differ."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.3, **sizes, **heads))
    return Judge(model.eval(), tokenizer, "You know houses.", batch_size=4, max_tokens=64)


def alone(judge: Judge, shown: Example | None, task: Example) -> float:
    """The loss of a task's answer, its whole conversation passed by itself."""
    import torch

    ((prompt, answer),) = judge.pairs(shown, [task])
    with torch.inference_mode():
        labels = torch.tensor([[-100] * len(prompt) + answer])
        return float(judge.model(input_ids=torch.tensor([prompt + answer]), labels=labels).loss)


def test_losses_by_shared_passes_are_those_of_every_pair_by_itself(judge: Judge) -> None:
    for shown in (None, *EXAMPLES):
        losses = answer_losses(judge.model, judge.pairs(shown, TASKS), batch_size=4)
        assert losses == pytest.approx([alone(judge, shown, task) for task in TASKS], abs=1e-3)


def test_pairs_that_share_nothing_or_everything_can_be_asked_together(judge: Judge) -> None:
    """The second prompt begins with the whole of the first; the third with another token."""
    pairs = [([5, 6], [7]), ([5, 6, 8], [9, 10]), ([4], [7, 7, 7])]
    together = answer_losses(judge.model, pairs, batch_size=8)
    assert together == pytest.approx([answer_losses(judge.model, [pair], 1)[0] for pair in pairs], abs=1e-3)
    assert answer_losses(judge.model, pairs[:2], 8) == pytest.approx(together[:2], abs=1e-3)


def test_a_golden_score_is_the_share_of_other_tasks_that_the_example_helps(judge: Judge) -> None:
    """Examples 4 and 5 are tasks themselves, and are judged by the eight others."""
    scores = golden_scores(judge, EXAMPLES, TASKS)
    for shown, golden in zip(EXAMPLES, scores, strict=True):
        gains = [alone(judge, None, task) - alone(judge, shown, task) for task in TASKS if task.id != shown.id]
        assert golden.tasks == len(gains) == (8 if shown in TASKS else 9)
        assert golden.score == sum(gain > 0 for gain in gains) / len(gains)
        assert golden.gain == pytest.approx(sum(gains) / len(gains), abs=1e-3)


def test_an_example_that_is_alone_has_no_golden_score(judge: Judge) -> None:
    assert golden_scores(judge, TASKS[:1], TASKS[:1]) == [Golden(0.0, 0.0, 0)]


def test_a_long_answer_is_cut_before_it_is_shown_and_no_character_is_torn(judge: Judge) -> None:
    long = EXAMPLES[0].model_copy(update={"output": "许可证需要十周。" * 50})
    room = replace(judge, max_tokens=40)
    ((prompt, _),) = room.pairs(long, TASKS[:1])
    ((whole, _),) = judge.pairs(None, TASKS[:1])
    text = judge.tokenizer.decode(prompt)
    assert len(prompt) < len(whole) + 40 + 20
    assert "许可证" in text and "�" not in text


def test_tasks_are_the_middles_of_clusters_among_the_shorter_rows() -> None:
    """Two subjects of three rows about 4° and 89°; the rows at 0° and 45° are long, and no tasks."""
    degrees, lengths = np.radians([0, 1, 4, 8, 85, 89, 94, 45]), np.array([90, 10, 10, 10, 10, 10, 10, 99])
    features = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    assert choose_tasks(features, lengths, 2, seed=1) == [2, 5]
    assert choose_tasks(features, lengths, 50, seed=1) == [1, 2, 3, 4, 5, 6]
