"""What one browser tab holds: the turns of its conversation, and what was said about them.

Plain data, changed by one event loop only, so it needs no locks. Nothing here is the truth: that is the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_TURNS_SENT = 16


@dataclass
class Answer:
    """One answer of the model as the page shows it; `id` is empty until the answer is stored."""

    id: str = ""
    text: str = ""
    version: str = ""
    finish: str = ""
    position: int | None = None
    thumb: int = 0
    rating: int = 0
    correction: str = ""
    comment: str = ""

    @property
    def final(self) -> str:
        """What the conversation goes on from: the correction where there is one."""
        return self.correction or self.text


@dataclass
class Turn:
    """A question, its answer or its two drafts, and what went wrong, as the key of a text."""

    question: str
    answer: Answer = field(default_factory=Answer)
    drafts: list[Answer] = field(default_factory=list)
    chosen: int | None = None
    error: str = ""
    reason: str = ""

    @property
    def choosing(self) -> bool:
        """Whether a blind choice is open; until it is made nothing may tell who wrote which."""
        return bool(self.drafts) and self.chosen is None


@dataclass
class Editing:
    """What the editor is open on: a correction or a comment of one stored answer."""

    answer_id: str
    kind: str
    original: str


@dataclass
class Session:
    """Everything a tab holds."""

    language: str = "en"
    conversation: str | None = None
    turns: list[Turn] = field(default_factory=list)
    busy: bool = False
    stopping: bool = False
    editing: Editing | None = None
    status: str = ""
    # Idempotency keys of feedback that is not acknowledged yet, by what it says: a second click sends the same key.
    pending: dict[tuple[str, ...], str] = field(default_factory=dict)

    def messages(self, upto: int) -> list[dict[str, str]]:
        """The question of turn `upto` after the turns before it that have an answer; the oldest fall away."""
        told: list[dict[str, str]] = []
        for turn in self.turns[max(0, upto - MAX_TURNS_SENT) : upto]:
            if turn.answer.final:
                told.append({"role": "user", "content": turn.question})
                told.append({"role": "assistant", "content": turn.answer.final})
        return [*told, {"role": "user", "content": self.turns[upto].question}]

    def find(self, answer_id: str) -> tuple[Turn, Answer] | None:
        """The turn and answer of an id, if this tab shows it."""
        for turn in self.turns:
            for answer in [turn.answer, *turn.drafts]:
                if answer_id and answer.id == answer_id:
                    return turn, answer
        return None
