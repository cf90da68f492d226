"""The project's model classes for OpenCompass's own prompts (chat_prompts.py).

Runs only in the evaluation environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opencompass.registry import MODELS

from tasks.evaluate.run.chat_prompts import ChatParser
from tasks.evaluate.run.opencompass_engine import EngineModel
from tasks.evaluate.run.opencompass_model import AnswerModel
from tasks.text.prompts import encode_text


class _Asked:
    """What both model classes below have in common; see the top of this module."""

    tokenizer: Any
    boundary: str

    def __init__(self, *, system: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.template_parser = ChatParser(self.tokenizer, system, self.boundary)

    def get_token_len(self, prompt: str) -> int:
        """Tokens of a rendered text; nothing is added to it."""
        return len(encode_text(self.tokenizer, prompt))

    def generate(
        self,
        inputs: list[str],
        max_out_len: int,
        stopping_criteria: Sequence[str] = (),
        min_out_len: int | None = None,
        **settings: Any,
    ) -> list[str]:
        """Greedy continuations, cut where the set says that an answer stops; `min_out_len` would force more words."""
        for text in inputs:
            self._check_length(self.get_token_len(text) + max_out_len)  # type: ignore[attr-defined]
        texts: list[str] = super().generate(inputs, max_out_len, **settings)  # type: ignore[misc]
        for stop in stopping_criteria:
            texts = [text.split(stop)[0] for text in texts]
        return texts


@MODELS.register_module()
class ChatModel(_Asked, AnswerModel):
    """AnswerModel that takes OpenCompass's own prompts."""


@MODELS.register_module()
class ChatEngineModel(_Asked, EngineModel):
    """EngineModel that takes OpenCompass's own prompts."""
