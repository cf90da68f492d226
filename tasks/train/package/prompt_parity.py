"""Is a question the same tokens in training and where it is served? Each side is asked through its own code.

Limits: an engine that brings its own template is found by the probes before traffic (tasks/engine/parity.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.text.parity import CONVERSATIONS, PromptsDiffer, Reading, as_trained, first_difference, refuse_differing
from tasks.text.prompts import PromptBook, encode_text, messages_of, render
from tasks.train.package.weight_parity import load_tokenizer

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def check_prompts(system: str, trained: Path, served: Path, packaged: dict[str, Any]) -> int:
    """Compare training's, the engine's and the gateway's reading of all conversations; returns how many there are.

    `packaged` is the package's prompt.json. Raises PromptsDiffer: a token, the turn's end or a special token differs.
    """
    before, after, book = load_tokenizer(trained), load_tokenizer(served), PromptBook(served)
    _check_special_tokens(before, after, packaged)
    if packaged["system"] != system:
        raise PromptsDiffer("the packaged system prompt is not the one of the domain")
    for conversation in CONVERSATIONS:
        answer = conversation.answer + after.eos_token
        messages = messages_of(system, conversation.user, conversation.history)
        text, counted = _rendered(after, packaged, messages, True), render(book, messages)
        ids, answer_ids = tuple(encode_text(after, text)), tuple(encode_text(after, answer))
        engine = Reading("the engine", text, ids, answer_ids)
        gateway = Reading("the gateway", counted, tuple(book.ids(counted)), tuple(book.ids(answer)))
        refuse_differing([as_trained(before, system, conversation), engine, gateway])
        turns = [{"role": "assistant", "content": conversation.answer}, {"role": "user", "content": "?"}]
        later = _rendered(after, packaged, messages + turns, False)
        if not later.startswith(text + answer):
            raise PromptsDiffer(
                "the chat template writes an answer of an earlier turn otherwise than it is trained: "
                + first_difference(text + answer, later)
            )
    return len(CONVERSATIONS)


def _rendered(tokenizer: Any, packaged: dict[str, Any], messages: list[dict[str, str]], begin: bool) -> str:
    """As an engine reads chat messages: its tokenizer renders the packaged template and adds nothing."""
    template = packaged["chat_template"]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=begin)
    return str(text)


def _check_special_tokens(before: Any, after: Any, packaged: dict[str, Any]) -> None:
    if after.eos_token is None:
        raise PromptsDiffer("the tokenizer names no eos_token, so that no answer would ever end")
    for name in NAMED:
        one, other = getattr(before, name), getattr(after, name)
        pair = (one, before.convert_tokens_to_ids(one)), (other, after.convert_tokens_to_ids(other))
        if pair[0] != pair[1] or packaged["special_tokens"].get(name) != other:
            raise PromptsDiffer(f"{name} is {pair[0]} in training and {pair[1]} where it is served")
