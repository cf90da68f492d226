"""The one place where text becomes what the model reads: training, evaluation and serving all come here.

Needs only a tokenizer with a chat template. The answer is tokenised apart from the prompt and ends with the
template's end-of-turn token, so the boundary between the two never depends on the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import FlywheelError

if TYPE_CHECKING:
    from tasks.records import Example


class PromptError(FlywheelError):
    """A text cannot be rendered or encoded as asked."""


def messages_of(system: str, user: str, history: tuple[Any, ...] = ()) -> list[dict[str, str]]:
    """Chat messages: the system prompt (left out when empty), the earlier turns, then the user's."""
    messages = [{"role": "system", "content": system}] if system else []
    for turn in history:
        messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.assistant}]
    return [*messages, {"role": "user", "content": user}]


def smuggled_markers(tokenizer: Any, text: str) -> list[str]:
    """The tokenizer's special tokens that stand in `text` as plain characters, e.g. `<|im_start|>`."""
    return [token for token in tokenizer.all_special_tokens if token in text]


def render_prompt(tokenizer: Any, system: str, user: str, history: tuple[Any, ...] = ()) -> str:
    """The prompt as text, ending where the assistant's answer begins.

    Raises:
        PromptError: a part of it holds one of the tokenizer's special tokens, so a reader could forge a role.
    """
    messages = messages_of(system, user, history)
    for message in messages:
        if found := smuggled_markers(tokenizer, message["content"]):
            raise PromptError(f"the {message['role']} text holds the special token {found[0]!r}")
    rendered: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return rendered


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered text; nothing is added to it."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def encode_answer(tokenizer: Any, answer: str) -> list[int]:
    """Token ids of an answer, with the end-of-turn token behind it."""
    if found := smuggled_markers(tokenizer, answer):
        raise PromptError(f"the answer holds the special token {found[0]!r}")
    return [*encode_text(tokenizer, answer), tokenizer.eos_token_id]


def encode_example(tokenizer: Any, system: str, example: Example, max_tokens: int) -> tuple[list[int], list[int]]:
    """Token ids of an example's prompt and of its answer.

    Raises:
        PromptError: the two together are longer than `max_tokens`; nothing is cut in silence.
    """
    prompt = render_prompt(tokenizer, example.system or system, example.prompt, example.history)
    prompt_ids, answer_ids = encode_text(tokenizer, prompt), encode_answer(tokenizer, example.output)
    if len(prompt_ids) + len(answer_ids) > max_tokens:
        length = len(prompt_ids) + len(answer_ids)
        raise PromptError(f"example {example.id[:12]} has {length} tokens, more than {max_tokens}")
    return prompt_ids, answer_ids
