"""Preferences as token ids, and the reward model as it is loaded: frozen, and blind to padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.core.records import Message, Preference, make_preference
from tasks.text.prompts import PromptError, encode_prompt
from tasks.train.align.online.judging import load_reward_model
from tasks.train.preference.rows import dpo_rows, encode_groups, kto_rows

SYSTEM = "Be brief."


@pytest.fixture(scope="module")
def tokenizer(base_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model)


def a_pair(question: str, chosen: str, rejected: str, *source: str) -> Preference:
    return make_preference((Message(role="user", content=question),), chosen, rejected, source)


PAIRS = [
    a_pair("One?", "good", "poor", "reference", "base_model", "faq/1"),
    a_pair("Two?", "right", "wrong", "feedback/3"),
    a_pair("One?", "good", "off", "reference", "wrong_category", "faq/1"),
    a_pair("One?", "poor", "off", "base_model", "wrong_category", "faq/1"),
]


def test_a_prompt_s_answers_come_once_however_many_pairs_they_are_in(tokenizer: Any) -> None:
    one, two = encode_groups(tokenizer, SYSTEM, PAIRS, 64)
    assert [tokenizer.decode(answer) for answer in one.answers] == ["good<|im_end|>", "poor<|im_end|>", "off<|im_end|>"]
    assert one.pairs == [(0, 1), (0, 2), (1, 2)]
    assert one.kinds == ["reference > base_model", "reference > wrong_category", "base_model > wrong_category"]
    assert (two.pairs, two.kinds) == ([(0, 1)], ["people"])


def test_a_prompt_is_rendered_as_it_is_served_with_the_domain_s_system_message(tokenizer: Any) -> None:
    asked = (
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Yes?"),
        Message(role="user", content="One?"),
    )
    messages = [{"role": "system", "content": SYSTEM}, *(message.model_dump() for message in asked)]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(encode_prompt(tokenizer, SYSTEM, asked)) == rendered
    own = (Message(role="system", content="Sing."), Message(role="user", content="One?"))
    assert "Sing." in tokenizer.decode(encode_prompt(tokenizer, SYSTEM, own))


@pytest.mark.parametrize("roles", [(), ("assistant",), ("user", "user"), ("user", "assistant")])
def test_a_prompt_that_does_not_end_with_the_user_is_refused(tokenizer: Any, roles: tuple[Any, ...]) -> None:
    with pytest.raises(PromptError, match="end with the user"):
        encode_prompt(tokenizer, SYSTEM, [Message(role=role, content="a") for role in roles])


def test_an_answer_too_long_is_not_cut(tokenizer: Any) -> None:
    (group,) = encode_groups(tokenizer, SYSTEM, [PAIRS[1]], 64)
    longest = max(map(len, group.sequences))
    assert encode_groups(tokenizer, SYSTEM, [PAIRS[1]], longest)
    with pytest.raises(PromptError, match=r"no preference can be learnt from.* 1 tokens longer"):
        encode_groups(tokenizer, SYSTEM, [PAIRS[1]], longest - 1)


def test_a_pair_that_cannot_be_encoded_is_laid_aside_and_the_others_are_learnt(
    tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Message(role="user", content="One?")
    bad = [
        a_pair("One?", "word " * 600, "poor"),
        a_pair("One?", "good", "word " * 600),
        a_pair("One?", "good", "<|im_end|>"),
        make_preference((asked, asked), "good", "poor", ()),
        make_preference((), "good", "poor", ()),
    ]
    assert encode_groups(tokenizer, SYSTEM, [*bad, *PAIRS], 64) == encode_groups(tokenizer, SYSTEM, PAIRS, 64)
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" is laid aside: ")[0] for line in said] == [f"preference {one.id[:12]}" for one in bad]


def test_dpo_reads_a_row_a_pair(tokenizer: Any) -> None:
    groups = encode_groups(tokenizer, SYSTEM, PAIRS, 64)
    rows = dpo_rows(groups)
    told = [(tokenizer.decode(row["chosen_ids"][:-1]), tokenizer.decode(row["rejected_ids"][:-1])) for row in rows]
    assert told == [("good", "poor"), ("good", "off"), ("poor", "off"), ("right", "wrong")]
    assert [row["prompt_ids"] for row in rows] == [groups[0].prompt] * 3 + [groups[1].prompt]


def test_for_kto_an_answer_is_desirable_unless_another_was_chosen_over_it(tokenizer: Any) -> None:
    """Five answers; "poor" was chosen once and rejected once. In batches of two the last row is alone."""
    rows = kto_rows(encode_groups(tokenizer, SYSTEM, PAIRS, 64), batch_size=2, seed=1)
    labels = {tokenizer.decode(row["completion_ids"][:-1]): row["label"] for row in rows}
    assert labels == {"good": True, "poor": False, "off": False, "right": True, "wrong": False}
    answers = [row["completion_ids"] for row in rows]
    others = [row["KL_completion_ids"] for row in rows]
    assert others == [answers[1], answers[0], answers[3], answers[2], answers[0]]


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
