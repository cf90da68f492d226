"""Tiny random models of the families that transformers has natively, laid out as their makers publish them.

Two layers, 64 wide. The tokenizer knows bytes and the family's markers; templates are cut down after the published ones
to what makes each of them hard.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.small_tokenizer import LLAMA

SIZES = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
QWEN2 = """{%- if messages[0]['role'] != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
QWEN3 = """{%- set ns = namespace(last=messages|length - 1, looking=true) %}
{%- for message in messages[::-1] %}
    {%- if ns.looking and message.role == 'user' %}
        {%- set ns.looking = false %}{%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- if message.role == 'assistant' and loop.index0 > ns.last %}
        {{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + content + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
THINKING = QWEN2.replace("'<|im_start|>assistant\\n' }}", "'<|im_start|>assistant\\n<think>\\n' }}")
GEMMA3 = """{{ bos_token }}
{%- set first = messages[0]['content'] + '\\n\\n' if messages[0]['role'] == 'system' else '' -%}
{%- set loop_messages = messages[1:] if messages[0]['role'] == 'system' else messages -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') + message['content'] | trim
       + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""
GEMMA2 = GEMMA3.replace(
    "{%- set first",
    "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}"
    "{%- set first",
)
MISTRAL = """{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{{- '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
    {%- elif message.role == 'user' %}{{- '[INST]' + message.content + '[/INST]' }}
    {%- else %}{{- message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
PHI3 = """{% for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
GLM4 = """[gMASK]<sop>
{%- for message in messages %}{{ '<|' + message.role + '|>\\n' + message.content }}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{%- endif %}
"""


@dataclass(frozen=True)
class Family:
    """One family. `named`: the tokenizer's named tokens; `ends`, `pad`: what must come out of them and the template."""

    template: str
    named: dict[str, str]
    ends: str
    pad: str
    markers: tuple[str, ...] = ()
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    kind: str = "TokenizersBackend"
    adds_begin: bool = False  # the tokenizer puts its first token before any text, and the template writes it too
    config: dict[str, Any] = field(default_factory=dict)


CHATML = ("<|im_start|>", "<|im_end|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
FUSED = ("gate_up_proj", "down_proj", "o_proj")
FAMILIES = {
    "llama": Family(
        LLAMA,
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        "<|eot_id|>",
        "<|finetune_right_pad_id|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>"),
        adds_begin=True,
    ),
    "qwen2": Family(
        QWEN2, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, "<|im_end|>", "<|endoftext|>", CHATML,
        kind="Qwen2Tokenizer",
    ),
    "qwen3": Family(
        QWEN3, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, "<|im_end|>", "<|endoftext|>", CHATML,
        kind="Qwen2Tokenizer", config={"head_dim": 16},
    ),
    "gemma3_text": Family(
        GEMMA3,
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"},
        "<end_of_turn>",
        "<pad>",
        ("<start_of_turn>", "<end_of_turn>"),
        adds_begin=True,
        config={"head_dim": 16},
    ),
    "mistral": Family(
        MISTRAL,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "</s>",
        "<unk>",
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        adds_begin=True,
    ),
    "phi3": Family(
        PHI3,
        {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"},
        "<|end|>",
        "<|endoftext|>",
        (*ROLES, "<|end|>"),
        ("qkv_proj", *FUSED),
    ),
    "glm4": Family(
        GLM4,
        {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
        "<|user|>",
        "<|endoftext|>",
        ("[gMASK]", "<sop>", *ROLES),
        ("q_proj", "k_proj", "v_proj", *FUSED),
        config={"head_dim": 16},
    ),
}  # fmt: skip


def lay_family(folder: Path, name: str, family: Family | None = None, dtype: str = "bfloat16") -> Path:
    """A model of the family `name`, random, in two shards, with its tokenizer, settings and model card."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family = family or FAMILIES[name]
    tokenizer = lay_tokenizer(folder, family)
    ids = {key: tokenizer.convert_tokens_to_ids(family.named.get(key)) if family.named.get(key) else None
           for key in ("bos_token", "eos_token", "pad_token")}  # fmt: skip
    config = AutoConfig.for_model(name, **SIZES, **family.config, **{f"{key}_id": value for key, value in ids.items()})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size="150KB")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    return folder


def lay_tokenizer(folder: Path, family: Family) -> Any:
    """The family's tokenizer: bytes, its named tokens and markers."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = dict.fromkeys([*family.named.values(), *family.markers])
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    if family.adds_begin:
        begin = family.named["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, made.token_to_id(begin))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **family.named)
    fast.chat_template = family.template
    fast.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": family.kind}))
    return fast
