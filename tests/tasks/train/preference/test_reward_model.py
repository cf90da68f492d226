"""The reward model as it is loaded: frozen, and blind to padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.train.preference.reward_model import load_reward_model

PAD = 2


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage reward leaves: a LoRA whose weights do something, and a score head."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1, pad_token_id=PAD)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], task_type="SEQ_CLS"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    folder = tmp_path_factory.mktemp("reward") / "adapter"
    tuned.save_pretrained(folder)
    return folder


def test_padding_on_either_side_with_any_token_changes_no_score(tiny_model: Path, trained: Path) -> None:
    model = load_reward_model(trained, tiny_model, torch.float32, PAD)
    sequences = [[5, 60, 70, 80, 90], [5, 61], [5, 62, 72]]
    alone = [model(torch.tensor([one]), torch.ones(1, len(one), dtype=torch.long)).item() for one in sequences]
    assert len({round(score, 4) for score in alone}) == 3
    for side in (slice(None), slice(None, None, -1)):
        ids = [[*one, *[7] * (5 - len(one))][side] for one in [one[side] for one in sequences]]
        mask = [([1] * len(one) + [0] * (5 - len(one)))[side] for one in sequences]
        scores = model(torch.tensor(ids), torch.tensor(mask))
        assert scores.tolist() == pytest.approx(alone, abs=1e-4) and not scores.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_trained_head_comes_with_the_adapter(tiny_model: Path, trained: Path) -> None:
    """A head drawn anew would score otherwise each time."""
    ids, mask = torch.tensor([[5, 60, 70]]), torch.ones(1, 3, dtype=torch.long)
    scores = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(load_reward_model(trained, tiny_model, torch.float32, PAD)(ids, mask).item())
    assert scores[0] == scores[1]
