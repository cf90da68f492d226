"""A preference as token ids: rendered as in SFT and serving (prompts.py), nothing cut in silence.

A conversation without a system message gets the domain's. Answers end with the end-of-turn token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.core.records import Message, Preference, Turn
from tasks.text.prompts import PromptError, encode_answer, encode_text, render_prompt


def encode_preference(
    tokenizer: Any, system: str, preference: Preference, max_tokens: int
) -> tuple[list[int], list[int], list[int]]:
    """Token ids of a preference's prompt, of the chosen answer and of the rejected one.

    Raises:
        PromptError: it is longer than `max_tokens` with either, holds a special token, both answers have the same
            tokens, or the prompt does not end with the user.
    """
    prompt = encode_prompt(tokenizer, system, preference.prompt)
    chosen, rejected = (encode_answer(tokenizer, text) for text in (preference.chosen, preference.rejected))
    if (extra := len(prompt) + max(len(chosen), len(rejected)) - max_tokens) > 0:
        raise PromptError(f"it is {extra} tokens longer than max_tokens allows")
    if chosen == rejected:
        raise PromptError("both answers are the same tokens")
    return prompt, chosen, rejected


def encode_prompt(tokenizer: Any, system: str, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant's answer begins.

    Raises:
        PromptError: the messages are not, after a system message, user and assistant in turn, the user last.
    """
    if messages and messages[0].role == "system":
        system, messages = messages[0].content, messages[1:]
    expected = ["user" if place % 2 == 0 else "assistant" for place in range(len(messages))]
    if [message.role for message in messages] != expected or len(messages) % 2 == 0:
        raise PromptError("a preference's prompt has to be user and assistant in turn, and to end with the user")
    turns = [Turn(user=messages[i].content, assistant=messages[i + 1].content) for i in range(0, len(messages) - 1, 2)]
    return encode_text(tokenizer, render_prompt(tokenizer, system, messages[-1].content, tuple(turns)))
