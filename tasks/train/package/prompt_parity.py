"""Is a question the same tokens in training, in evaluation and where it is served?

Each side is asked through its own code: training through tasks.text.prompts.encode_example, evaluation through the very
line that OpenCompass is given, the gateway through its prompt book, and the engine as it works: the packaged template,
rendered and tokenised by the tokenizer that lies with the weights it loads. Conversations are chosen to go wrong:
spaces and line breaks at the ends, marks, other scripts, earlier turns.
Limits: an engine that brings its own template is found by the probes before it takes traffic (tasks/engine/parity.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.text.parity import (
    CONVERSATIONS,
    Conversation,
    PromptsDiffer,
    Reading,
    as_trained,
    first_difference,
    refuse_differing,
)
from tasks.text.prompts import PromptBook, encode_text, messages_of, render
from tasks.train.package.weight_parity import load_tokenizer

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def check_prompts(system: str, trained: Path, served: Path, packaged: dict[str, Any]) -> int:
    """Compare all sides on all conversations; returns how many were compared.

    Raises PromptsDiffer: a token differs, the turn does not end as it was trained to, or special tokens do.

    Args:
        system: the domain's system prompt.
        trained: the model that training began from; training reads its tokenizer.
        served: the folder that an engine loads.
        packaged: the package's prompt.json.
    """
    before, after = load_tokenizer(trained), load_tokenizer(served)
    _check_special_tokens(before, after, packaged)
    if packaged["system"] != system:
        raise PromptsDiffer("the packaged system prompt is not the one of the domain")
    for conversation in CONVERSATIONS:
        readings = [
            as_trained(before, system, conversation),
            as_served(after, system, conversation, str(packaged["chat_template"])),
            as_counted(PromptBook(served), after, system, conversation),
        ]
        refuse_differing(readings)
        _check_end_of_turn(after, system, conversation, str(packaged["chat_template"]))
    return len(CONVERSATIONS)


def as_served(tokenizer: Any, system: str, conversation: Conversation, template: str) -> Reading:
    """As an engine reads chat messages: its tokenizer renders the packaged template and adds nothing."""
    messages = messages_of(system, conversation.user, conversation.history)
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    answer = encode_text(tokenizer, conversation.answer + tokenizer.eos_token)
    return Reading("the engine", text, tuple(encode_text(tokenizer, text)), tuple(answer))


def as_counted(book: PromptBook, tokenizer: Any, system: str, conversation: Conversation) -> Reading:
    """As the gateway renders a prompt, to count and to record it."""
    text = render(book, messages_of(system, conversation.user, conversation.history))
    answer = book.ids(conversation.answer + str(tokenizer.eos_token))
    return Reading("the gateway", text, tuple(book.ids(text)), tuple(answer))


def _check_end_of_turn(tokenizer: Any, system: str, conversation: Conversation, template: str) -> None:
    """The template writes an answer into a history as it was trained: with the end-of-turn token behind it."""
    messages = messages_of(system, conversation.user, conversation.history)
    begun = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    messages += [{"role": "assistant", "content": conversation.answer}, {"role": "user", "content": "?"}]
    later = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    trained = begun + conversation.answer + tokenizer.eos_token
    if not later.startswith(trained):
        raise PromptsDiffer(
            "the chat template writes an answer of an earlier turn otherwise than it is trained: "
            + first_difference(trained, later)
        )


def _check_special_tokens(before: Any, after: Any, packaged: dict[str, Any]) -> None:
    for name in NAMED:
        one, other = getattr(before, name), getattr(after, name)
        pair = (one, before.convert_tokens_to_ids(one)), (other, after.convert_tokens_to_ids(other))
        if pair[0] != pair[1] or packaged["special_tokens"].get(name) != other:
            raise PromptsDiffer(f"{name} is {pair[0]} in training and {pair[1]} where it is served")
    if after.eos_token is None:
        raise PromptsDiffer("the tokenizer names no eos_token, so that no answer would ever end")
