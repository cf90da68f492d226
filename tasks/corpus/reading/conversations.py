"""Conversations as ShareGPT, OpenAI and TRL write them: turns of a system, a user and an assistant.

An example holds text only: a turn that calls a tool or shows a picture is refused by name, and its conversation with
it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.core.records import Turn
from tasks.corpus.reading.values import listed, needed_text, optional_text
from tasks.text.markup import THINKS, THOUGHT

CONVERSATIONS = ("conversations", "messages", "conversation")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
         "bing": "assistant", "bard": "assistant", "model": "assistant", "bot": "assistant", "ai": "assistant",
         "system": "system", "developer": "system"}  # fmt: skip
FLAGS = ("weight", "train", "loss")  # of a turn: none of them may be 0 or false, or its answer is not to be learnt
TURN_FIELDS = ("from", "role", "value", "content", *FLAGS)
CALLS = ("tool_calls", "function_call")
PICTURES = ("image", "images", "video", "videos", "audio", "audios")  # beside the turns


class Exchange(NamedTuple):
    """One answer to be learnt: what the user said last, the answer as it stands, and what was said before."""

    instruction: str
    output: str
    system: str
    history: tuple[Turn, ...]


def conversation_in(fields: dict[str, Any]) -> tuple[str, list[Any]]:
    """The field that holds turns, and these; of several the first that is not empty."""
    for name in CONVERSATIONS:
        found = listed(fields.get(name), name)
        if isinstance(found, dict):
            found = _unzipped(found)
        if found and isinstance(found, list):
            return name, found
    return "", []


def _unzipped(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Turns that a column of a datasets folder holds as lists beside each other: {"from": [...], "value": [...]}."""
    if not columns or not all(isinstance(values, list) for values in columns.values()):
        return []
    return [dict(zip(columns, turn, strict=True)) for turn in zip(*columns.values(), strict=True)]


def exchanges(fields: dict[str, Any]) -> list[Exchange]:
    """Every answer of a conversation that is to be learnt, by the FLAGS of its turn, with what was said before.

    Raises ValueError: it is no conversation of user and assistant in turn, holds more than text, or no answer to learn.
    """
    if pictures := [name for name in PICTURES if fields.get(name)]:
        raise ValueError(f"it comes with {pictures[0]}, and an example holds text only")
    turns = conversation_in(fields)[1]
    said = [spoken_turn(turn) for turn in turns]
    learns = [all(str(turn.get(flag)).casefold() not in ("0", "0.0", "false") for flag in FLAGS) for turn in turns]
    within = said.pop(0)[1] if said and said[0][0] == "system" else ""
    beside = optional_text(fields, "system")
    system = "\n\n".join(dict.fromkeys(text for text in (beside, within) if text))
    if [role for role, _ in said] != ["user", "assistant"] * (len(said) // 2) or not said:
        raise ValueError("a conversation must go user, assistant, user, assistant, and end with an answer")
    learnt = [place for place, learn in enumerate(learns[-len(said) :]) if place % 2 and learn]
    if not learnt:
        raise ValueError(f"no answer of the conversation is to be learnt: each has {', '.join(FLAGS)} 0 or false")
    texts = [text for _, text in said]
    pairs = [*zip(texts[::2], texts[1::2], strict=True)][: learnt[-1] // 2]
    earlier = [Turn(user=user, assistant=without_thoughts(reply)) for user, reply in pairs]
    return [Exchange(texts[place - 1], texts[place], system, tuple(earlier[: place // 2])) for place in learnt]


def spoken_turn(turn: Any) -> tuple[str, str]:
    """Who speaks (system, user or assistant) and what. Raises ValueError: it is no turn, or more than text."""
    if not isinstance(turn, dict):
        raise ValueError("a turn of a conversation must be an object")
    role = str(turn.get("from") or turn.get("role")).casefold()
    if calls := [name for name in CALLS if turn.get(name)]:
        raise ValueError(f"a turn holds {calls[0]}, and an example holds text only")
    if role not in ROLES:
        raise ValueError(f"a turn is from {role[:40]!r}; known are {', '.join(ROLES)}")
    name = "value" if turn.get("value") is not None else "content"
    content = _joined_parts(turn.get(name))
    return ROLES[role], optional_text({name: content}, name) if ROLES[role] == "system" else needed_text(content, name)


def _joined_parts(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    kinds = [part.get("type") if isinstance(part, dict) else type(part).__name__ for part in content]
    if others := [kind for kind in kinds if kind != "text"]:
        raise ValueError(f"a turn has a part of type {others[0]!r}, and an example holds text only")
    return "\n".join(str(part.get("text", "")) for part in content)


def without_thoughts(answer: str) -> str:
    """An answer without the thoughts that a reasoning model writes before it; ValueError where nothing follows."""
    opened = THINKS.search(answer)
    spoken = answer if opened and opened.start() else THOUGHT.sub("", answer).strip()
    if not spoken or THINKS.match(spoken):
        raise ValueError("an answer holds thoughts only")
    return spoken
