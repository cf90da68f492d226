"""How long a prompt is and whether it smuggles role markers, without loading a model library.

tasks.prompts says what a prompt is; this reads the same files (tokenizer.json, tokenizer_config.json and
chat_template.jinja of the base model) with the small `tokenizers` package, because the gateway must start in a second
and count thousands of prompts a minute. A test holds the two against each other. The engine renders the prompt itself;
what is rendered here is counted and hashed only.
"""

from __future__ import annotations

import json
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import layout
from tasks.errors import FlywheelError
from tasks.files import sha256_bytes
from tasks.prompts import smuggled_markers

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

# transformers' own tags around what the assistant says; they render as what they hold.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation\b")
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerMissing(FlywheelError):
    """The base model's tokenizer is not where it should be."""


class PromptBook:
    """The base model's tokenizer and chat template. Safe to use from threads."""

    def __init__(self, folder: Path) -> None:
        """Reads tokenizer_config.json; the tokenizer itself (half a second) comes with the first use.

        Raises:
            TokenizerMissing: there is no base model in `folder`.
        """
        self.folder = folder
        try:
            self._config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise TokenizerMissing(
                f"{layout.BASE_MODEL} holds no tokenizer; build it: .venv/bin/dvc repro base_model"
            ) from None

    @cached_property
    def all_special_tokens(self) -> list[str]:
        """The tokens that have a role in the template or the model, as plain text."""
        extra = self._config.get("extra_special_tokens") or self._config.get("additional_special_tokens") or []
        named = [self._config.get(name) for name in _NAMED]
        values = [*named, *(extra.values() if isinstance(extra, dict) else extra)]
        texts = [value.get("content") if isinstance(value, dict) else value for value in values]
        return list(dict.fromkeys(text for text in texts if text))

    @cached_property
    def template_text(self) -> str:
        """The chat template as it was written."""
        path = self.folder / "chat_template.jinja"
        if path.is_file():
            return path.read_text(encoding="utf-8")
        return str(self._config.get("chat_template") or "")

    @cached_property
    def _template(self) -> Template:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        return environment.from_string(_plain(self.template_text))

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: a text of N characters has at least N / longest_token tokens."""
        return max(len(token) for token in self._tokenizer.get_vocab())

    def markers(self, text: str) -> list[str]:
        """The special tokens that stand in a text as plain characters."""
        return smuggled_markers(self, text)

    def render(self, messages: list[dict[str, str]]) -> str:
        """The prompt as the engine will render it, ending where the answer begins."""
        return self._template.render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=self._special("bos_token"),
            eos_token=self._special("eos_token"),
        )

    def _special(self, name: str) -> str:
        value = self._config.get(name) or ""
        return str(value.get("content", "")) if isinstance(value, dict) else str(value)

    def ids(self, prompt: str) -> list[int]:
        """The tokens of a rendered prompt; nothing is added to it."""
        return list(self._tokenizer.encode(prompt, add_special_tokens=False).ids)

    def count(self, prompt: str) -> int:
        """How many tokens a rendered prompt has."""
        return len(self.ids(prompt))

    def at_least(self, prompt: str) -> int:
        """A lower bound on the tokens of a prompt, without tokenising it."""
        return len(prompt) // self.longest_token

    def warm(self) -> None:
        """Load everything, so that the first request is not slower than the others."""
        self.count(self.render([{"role": "user", "content": "?"}]))
        self.at_least("")


def _plain(template: str) -> str:
    """A chat template in Jinja's own tags."""
    return _GENERATION.sub(lambda tag: tag[1] + ("endif" if tag[2] else "if true"), template)


def prompt_sha256(prompt: str) -> str:
    """What an answer's row keeps of its rendered prompt."""
    return sha256_bytes(prompt.encode())
