"""What every base model is given before it is written: a pad token, a chat template, role markers, no local notes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.core.base_model import shipped_template
from tasks.core.domain import Domain
from tasks.core.files import write_json
from tasks.core.records import Turn
from tasks.text.prompts import PromptError, messages_of, render
from tasks.train.base_model.folder import BaseModelError

# What transformers notes about this machine and this run rather than about the model.
LOCAL_KEYS = ("_model_name_or_path", "is_local", "local_files_only", "name_or_path")
CHATML_END = "<|im_end|>"


def own_template(tokenizer: Any, domain: Domain) -> None:
    """Give a model that has none the domain's chat template, and hold its role markers for special tokens.

    A marker that is none could be typed by a user. Raises BaseModelError: no template, one that cannot write the
    domain's conversations, or an unknown marker.
    """
    source = domain.base_model
    if unknown := [marker for marker in source.markers if marker not in tokenizer.get_vocab()]:
        raise BaseModelError(f"base_model.markers {unknown} are not in the model's vocabulary")
    if source.markers:
        tokenizer.add_special_tokens({"additional_special_tokens": source.markers})
    if source.chat_template:
        tokenizer.chat_template = domain.template_text()
        if shipped_template(source.chat_template):
            _fit_shipped(tokenizer)
    if not tokenizer.chat_template:
        raise BaseModelError(
            f"{source.name} has no chat template; name one in base_model.chat_template of domain.yaml: `chatml`, or a "
            "file of the domain's folder"
        )
    try:
        render(tokenizer, messages_of(domain.system_text(), "?", (Turn(user="?", assistant="?"),)))
    except PromptError as fault:
        raise BaseModelError(
            f"{source.name} with the domain's system prompt and an earlier turn: {fault}; name a template that writes "
            "both in base_model.chat_template, or leave the system prompt empty"
        ) from None


def _fit_shipped(tokenizer: Any) -> None:
    """End turns with <|im_end|> where the vocabulary has it, and begin with the model's own first token if it has one.

    Rendered prompts are encoded without what a tokenizer adds, so a model that was trained behind such a token would
    miss it.
    """
    if CHATML_END in tokenizer.get_vocab():
        tokenizer.eos_token = CHATML_END
    begin = tokenizer.bos_token_id
    if begin is not None and tokenizer("?")["input_ids"][:1] == [begin]:
        tokenizer.chat_template = "{{- bos_token }}" + tokenizer.chat_template


def own_pad_token(tokenizer: Any, pad_token: str) -> int:
    """Give the tokenizer a pad token of its own; returns its number. Raises BaseModelError: unknown, or ends turns.

    Equal to the end-of-turn token, it would be masked with the padding, and with it what teaches the model to stop.
    """
    if pad_token not in tokenizer.get_vocab():
        raise BaseModelError(f"base_model.pad_token {pad_token!r} is not in the model's vocabulary")
    tokenizer.pad_token = pad_token
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise BaseModelError(f"base_model.pad_token {pad_token!r} is the end-of-turn token; name another one")
    return int(tokenizer.pad_token_id)


def strip_local(folder: Path) -> None:
    """Take out of every JSON setting in `folder` what transformers notes about this machine."""
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            write_json(folder / name, {key: value for key, value in settings.items() if key not in LOCAL_KEYS})
