"""OpenCompass's side of a benchmark: its prompts as the model's own conversation, asked by the project's model classes.

A template of OpenCompass is a text or rounds of HUMAN, BOT and SYSTEM. It is rendered by `tasks.text.prompts` under the
system prompt that the model is served with, so that a benchmark asks as a user does. A likelihood that is compared is
that of the answer alone. Runs only in the evaluation environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opencompass.models.base import LMTemplateParser
from opencompass.registry import MODELS

from tasks.evaluate.run.opencompass_model import AnswerModel, EngineModel
from tasks.text.prompts import PromptError, encode_text, render, smuggled_markers

ROLES = {"HUMAN": "user", "BOT": "assistant", "SYSTEM": "system"}


class ChatParser(LMTemplateParser):
    """Renders OpenCompass's prompts by the chat template; `boundary` comes between prompt and answer."""

    def __init__(self, tokenizer: Any, system: str, boundary: str) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.system = system
        self.boundary = boundary

    def parse_template(self, prompt_template: Any, mode: str) -> Any:
        """The rendered text; a list of prompts gives a list. Raises PromptError: it does not end as `mode` needs."""
        if isinstance(prompt_template, str):
            # Few-shot examples by themselves, which OpenCompass only writes down, and texts without rounds.
            return self._text([*self._begin(), _message("user", prompt_template)]) if mode == "gen" else prompt_template
        if not _is_prompt(prompt_template):
            return [self.parse_template(one, mode) for one in prompt_template]
        if prompt_template and prompt_template[0] == {"section": "ice", "pos": "begin"}:
            return super().parse_template(prompt_template, mode)
        messages = self.messages(prompt_template)
        answer = messages.pop()["content"] if messages[-1]["role"] == "assistant" else None
        if messages[-1]["role"] != "user":
            raise PromptError("the template of a benchmark asks nothing: its last round has no HUMAN")
        if mode == "gen":  # a last round of BOT is the place of the answer
            return self._text(messages)
        if not (answer or "").strip():
            raise PromptError("the template of a benchmark does not say which part of it is the answer to score")
        self._check(str(answer))
        return self._text(messages) + self.boundary + str(answer).strip()

    def messages(self, prompt: Sequence[Any]) -> list[dict[str, str]]:
        """The conversation; what one role says in a row is one turn, a SYSTEM text at its start joins ours."""
        found = self._begin()
        for item in prompt:
            said = {"prompt": item.strip()} if isinstance(item, str) else item  # between examples there are line ends
            text, role = said.get("prompt", ""), ROLES.get(said.get("role", ""), "user")
            if role == "system" and any(one["role"] != "system" for one in found):
                role = "user"
            if found and found[-1]["role"] == role and text:
                found[-1] = _message(role, f"{found[-1]['content']}\n{text}")
            elif text or role == "assistant":
                found.append(_message(role, text))
        return found or [_message("user", "")]

    def _begin(self) -> list[dict[str, str]]:
        return [_message("system", self.system)] if self.system else []

    def _text(self, messages: list[dict[str, str]]) -> str:
        for message in messages:
            self._check(message["content"])
        return render(self.tokenizer, messages)

    def _check(self, text: str) -> None:
        if self.boundary in text:
            raise PromptError("an item holds the character U+001E, which separates prompt and answer here")
        if found := smuggled_markers(self.tokenizer, text):
            raise PromptError(f"an item holds the special token {found[0]!r}")


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _is_prompt(value: Sequence[Any]) -> bool:
    """A PromptList rather than a list or tuple of prompts: it holds rounds and marks of sections."""
    return any(isinstance(one, dict) for one in value)


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
