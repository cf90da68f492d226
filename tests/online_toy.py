"""A task for online trainings whose best answers are known: a walk of two steps over a table of rewards.

A prompt is one word, an answer two; every word earns what the table says for following the one before. A model of two
narrow layers and a vocabulary of a dozen words learns it in seconds on one core.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WORDS = 10
PROMPTS = 4
ANSWER_TOKENS = 2
PAD, END, FIRST = 0, 1, 2  # the words' own ids begin at FIRST
VOCABULARY = FIRST + WORDS


def table() -> Tensor:
    """Rewards of a word (column) after another (row), from 0 to 1; padding and the end of a turn earn nothing."""
    generator = torch.Generator().manual_seed(3)
    rewards = torch.zeros(VOCABULARY, VOCABULARY)
    rewards[FIRST:, FIRST:] = torch.rand(WORDS, WORDS, generator=generator)
    return rewards


def prompts() -> list[list[int]]:
    """Token ids of each prompt."""
    return [[FIRST + number] for number in range(PROMPTS)]


def best_rewards() -> list[float]:
    """What the best answer to each prompt earns, by trying all of them."""
    rewards = table()
    words = range(FIRST, VOCABULARY)
    return [
        max(float(rewards[prompt, first] + rewards[first, second]) for first, second in product(words, words))
        for [prompt] in prompts()
    ]


def earned(tokens: Tensor, mask: Tensor) -> Tensor:
    """(rows,) rewards of walks, padded on either side: the sum over all steps between two words of a row."""
    steps = table()[tokens[:, :-1], tokens[:, 1:]]
    return (steps * mask[:, :-1] * mask[:, 1:]).sum(dim=1)


@torch.no_grad()
def mean_reward(policy: Any, seed: int) -> float:
    """What 256 answers of a policy to each prompt earn on average."""
    from transformers import GenerationConfig

    config = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=ANSWER_TOKENS, pad_token_id=PAD, eos_token_id=END)
    torch.manual_seed(seed)
    asked = torch.tensor(prompts()).repeat_interleave(256, dim=0)
    tokens = policy.eval().generate(input_ids=asked, attention_mask=asked > 0, generation_config=config)
    return float(earned(tokens, (tokens != PAD).long()).mean())


def save_model(folder: Path, seed: int = 0) -> Path:
    """A model at random with its tokenizer, as `from_pretrained` loads them; returns the folder."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    LlamaForCausalLM(model_config()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def model_config(**more: Any) -> Any:
    """The shape of policy and reward model."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
        tie_word_embeddings=False,
        **more,
    )


def save_reward_model(folder: Path) -> Path:
    """A reward model at random in the form that stage reward leaves, whole weights; returns the folder."""
    from transformers import LlamaForSequenceClassification

    torch.manual_seed(5)
    model = LlamaForSequenceClassification(model_config(num_labels=1))
    torch.nn.init.normal_(model.score.weight, std=1.0)
    model.save_pretrained(folder)
    return folder


def tokenizer() -> Any:
    """Words w0, w1, … and the two special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": PAD, "<end>": END} | {f"w{number}": FIRST + number for number in range(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))  # noqa: S106 - not a password
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<end>")  # noqa: S106
    made.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return made
