"""How training reads a conversation that is chosen to go wrong, to be compared with evaluation, engine and gateway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import FlywheelError
from tasks.core.records import Turn, make_example
from tasks.text.prompts import encode_example, render_prompt

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


def as_trained(tokenizer: Any, system: str, conversation: Conversation) -> Reading:
    """As sft's workers encode an example."""
    fields: Any = {"instruction": conversation.user, "output": conversation.answer, "history": conversation.history}
    example = make_example(**fields, language="en", origin="human", source=("parity",))
    prompt_ids, answer_ids = encode_example(tokenizer, system, example, UNBOUNDED)
    prompt = render_prompt(tokenizer, system, conversation.user, conversation.history)
    return Reading("training", prompt, tuple(prompt_ids), tuple(answer_ids))


def refuse_differing(readings: Sequence[Reading]) -> None:
    """Raise PromptsDiffer where one side reads otherwise than the first, and say where."""
    first = readings[0]
    for other in readings[1:]:
        for what in ("prompt", "prompt_ids", "answer_ids"):
            if getattr(first, what) != getattr(other, what):
                raise PromptsDiffer(
                    f"{first.side} and {other.side} differ in {what.replace('_ids', ' tokens')}: "
                    f"{first_difference(getattr(first, what), getattr(other, what))}"
                )


def first_difference(one: Sequence[Any], other: Sequence[Any]) -> str:
    """Where two texts or lists of tokens part, and what stands there."""
    pairs = zip(one, other, strict=False)
    at = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    return f"at {at}, {one[at : at + 12]!r} against {other[at : at + 12]!r}"
