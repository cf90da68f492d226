"""Is a question the same tokens in training, in evaluation and where it is served?

Each side is asked through its own code: training through tasks.prompts.encode_example, evaluation through the very
line that OpenCompass is given, the gateway through its prompt book, and the engine as it works: the packaged template,
rendered and tokenised by the tokenizer that lies with the weights it loads. Conversations are chosen to go wrong:
spaces and line breaks at the ends, marks, other scripts, earlier turns.
Limits: an engine that brings its own template is found by the probes before it takes traffic (tasks/engine/parity.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import FlywheelError
from tasks.evaluate.measures import BOUNDARY, questions_of
from tasks.evaluate.opencompass_config import rows_of
from tasks.prompts import PromptBook, encode_example, encode_text, messages_of, render, render_prompt
from tasks.records import Turn, make_example, make_item
from tasks.train.packaging.weight_parity import load_tokenizer

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
UNBOUNDED = 10**9  # tokens


class PromptsDiffer(FlywheelError):
    """A model would be asked otherwise than it was trained."""


@dataclass(frozen=True)
class Conversation:
    """What is asked and answered, after earlier turns."""

    user: str
    answer: str
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What one side makes of it: the prompt as text and tokens, and the answer's tokens with the end of the turn."""

    side: str
    prompt: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]


CONVERSATIONS = (
    Conversation("Hello.", "Good day."),
    Conversation("  Two spaces before,\na line break within and after\n", "One.\n\n- Two"),
    Conversation("房子需要许可证吗?", "需要。"),
    Conversation("{{ messages }} {% if true %} <b>€ 1,000</b>\ttab 🏗️", "é = e + ´, 100 %"),
    Conversation("And then?", "Nothing.", (Turn(user="What is first?", assistant="The ground."),)),
)


def check_prompts(system: str, trained: Path, served: Path, packaged: dict[str, Any]) -> int:
    """Compare all sides on all conversations; returns how many were compared.

    Args:
        system: the domain's system prompt.
        trained: the model that training began from; training reads its tokenizer.
        served: the folder that an engine loads.
        packaged: the package's prompt.json.

    Raises:
        PromptsDiffer: a token differs, the turn does not end as it was trained to, or special tokens do.
    """
    before, after = load_tokenizer(trained), load_tokenizer(served)
    _check_special_tokens(before, after, packaged)
    _check_system(system, packaged)
    for conversation in CONVERSATIONS:
        readings = [
            as_trained(before, system, conversation),
            as_served(after, system, conversation, str(packaged["chat_template"])),
            as_counted(PromptBook(served), after, system, conversation),
        ]
        if not conversation.history:  # evaluation items have none
            readings.append(as_evaluated(after, system, conversation))
        _compare(readings)
        _check_end_of_turn(after, system, conversation, str(packaged["chat_template"]))
    return len(CONVERSATIONS)


def as_trained(tokenizer: Any, system: str, conversation: Conversation) -> Reading:
    """As sft's workers encode an example."""
    example = make_example(
        instruction=conversation.user,
        output=conversation.answer,
        history=conversation.history,
        language="en",
        origin="human",
        source=("parity",),
    )
    prompt_ids, answer_ids = encode_example(tokenizer, system, example, UNBOUNDED)
    prompt = render_prompt(tokenizer, system, conversation.user, conversation.history)
    return Reading("training", prompt, tuple(prompt_ids), tuple(answer_ids))


def as_evaluated(tokenizer: Any, system: str, conversation: Conversation) -> Reading:
    """As OpenCompass is sent a question about an answer's likelihood, and its model splits it again."""
    item = make_item(set="dialogue", prompt=conversation.user, reference=conversation.answer)
    line = rows_of(questions_of([item], tokenizer, system)[0])[0].text
    prompt, answer = line.split(BOUNDARY)
    ids = tuple(encode_text(tokenizer, prompt)), tuple(encode_text(tokenizer, answer))
    return Reading("evaluation", prompt, *ids)


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


def _compare(readings: Sequence[Reading]) -> None:
    first = readings[0]
    for other in readings[1:]:
        for what in ("prompt", "prompt_ids", "answer_ids"):
            if getattr(first, what) != getattr(other, what):
                raise PromptsDiffer(
                    f"{first.side} and {other.side} differ in {what.replace('_ids', ' tokens')}: "
                    f"{_first_difference(getattr(first, what), getattr(other, what))}"
                )


def _first_difference(one: Sequence[Any], other: Sequence[Any]) -> str:
    pairs = zip(one, other, strict=False)
    at = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return f"at {at}, {one[at : at + 12]!r} against {other[at : at + 12]!r}"


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
            + _first_difference(trained, later)
        )


def _check_special_tokens(before: Any, after: Any, packaged: dict[str, Any]) -> None:
    for name in NAMED:
        one, other = getattr(before, name), getattr(after, name)
        pair = (one, before.convert_tokens_to_ids(one)), (other, after.convert_tokens_to_ids(other))
        if pair[0] != pair[1] or packaged["special_tokens"].get(name) != other:
            raise PromptsDiffer(f"{name} is {pair[0]} in training and {pair[1]} where it is served")
    if after.eos_token is None:
        raise PromptsDiffer("the tokenizer names no eos_token, so that no answer would ever end")


def _check_system(system: str, packaged: dict[str, Any]) -> None:
    if packaged["system"] != system:
        raise PromptsDiffer("the packaged system prompt is not the one of the domain")
