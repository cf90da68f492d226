"""OpenCompass's prompts as the model's own conversation.

A template of OpenCompass is a text or rounds of HUMAN, BOT and SYSTEM. It is rendered by `tasks.text.prompts` under the
system prompt that the model is served with, so that a benchmark asks as a user does. A likelihood that is compared is
that of the answer alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from tasks.text.prompts import PromptError, render, smuggled_markers

SHOTS, ROUND = ({"section": name, "pos": "begin"} for name in ("ice", "round"))
ROLES = {"HUMAN": "user", "BOT": "assistant", "SYSTEM": "system"}


class ChatParser:
    """Renders OpenCompass's prompts by the chat template; `boundary` comes between prompt and answer."""

    def __init__(self, tokenizer: Any, system: str, boundary: str) -> None:
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
        if SHOTS in prompt_template and ROUND not in prompt_template:
            return "\n".join(one["prompt"] for one in prompt_template if isinstance(one, dict) and "prompt" in one)
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


class TemplateRefused(ValueError):
    """The templates of a set do not say what is to be scored."""


def scored_apart(template: dict[Any, Any]) -> dict[Any, Any]:
    """Templates of one text a label, as a question of HUMAN, which all have in common, and an answer of BOT.

    A template whose last round is BOT already says which part is the answer.
    """
    rounds = {label: _rounds(one) for label, one in template.items()}
    last = [found["round"][-1] for found in rounds.values()]
    if all(one.get("role") == "BOT" for one in last):
        return rounds
    texts = [str(one["prompt"]) for one in last]
    alike = zip(*texts, strict=False)
    cut = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, alike))
    opened = texts[0].rfind("{", 0, cut)
    if opened > texts[0].rfind("}", 0, cut):  # within the name of a column
        cut = opened
    if not texts[0][:cut].strip() or not all(text[cut:].strip() for text in texts):
        raise TemplateRefused("its templates do not begin alike and end apart: write the answer as a round of BOT")
    for found, one, text in zip(rounds.values(), last, texts, strict=True):
        question = {**one, "role": "HUMAN", "prompt": text[:cut].rstrip()}
        found["round"] = [*found["round"][:-1], question, {"role": "BOT", "prompt": text[cut:].strip()}]
    return rounds


def _rounds(template: Any) -> dict[str, Any]:
    if isinstance(template, str):
        return {"round": [{"role": "HUMAN", "prompt": template}]}
    return dict(template)
