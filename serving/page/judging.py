"""What people say about answers goes to the service, each click under a key of its own.

A key stays with what was said until the service has acknowledged it: a failed click that is repeated sends the same
key again, and is counted once whether or not the first one arrived.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from serving.errors import ServiceError
from serving.page.answering import explain
from serving.page.conversation import Session, Turn
from tasks.core.errors import FlywheelError

if TYPE_CHECKING:
    from serving.service import ChatService
    from tasks.store.identities import Identity

ATTEMPTS = 3
PAUSE_SECONDS = 0.3


class NotSaved(Exception):
    """Feedback that was not acknowledged: the key of the text that says why, and a reason to fill in."""

    def __init__(self, key: str, reason: str = "") -> None:
        super().__init__(key)
        self.key, self.reason = key, reason


async def send(
    service: ChatService, identity: Identity, session: Session, answer_id: str, kind: str, **said: Any
) -> None:
    """Store one reaction, trying again for a moment while the store is away.

    Raises:
        NotSaved: it was not acknowledged; saying the same again uses the same key.
    """
    from tasks.store.feedback import FeedbackIn

    content = (answer_id, kind, *(f"{name}={value}" for name, value in sorted(said.items())))
    key = session.pending.setdefault(content, f"page-{secrets.token_urlsafe(18)}")
    given = FeedbackIn(key=key, answer_id=answer_id, kind=kind, **said)
    for attempt in range(ATTEMPTS):
        try:
            await service.feedback(identity, given)
            break
        except ServiceError as error:
            if error.status < 500:
                raise NotSaved(*explain(error)) from error
        except (FlywheelError, OSError):
            pass
        if attempt == ATTEMPTS - 1:
            raise NotSaved("not_saved")
        await asyncio.sleep(PAUSE_SECONDS)
    del session.pending[content]


async def judge(
    service: ChatService, identity: Identity, session: Session, answer_id: str, kind: str, value: int
) -> None:
    """A thumb (1 or -1) or stars (1 to 5); the same again says nothing new and is not sent.

    Raises:
        NotSaved: see `send`.
        ValueError: it is neither.
    """
    if not ((kind == "thumb" and value in (1, -1)) or (kind == "rating" and 1 <= value <= 5)):
        raise ValueError(f"{kind} {value} is no judgement")
    found = session.find(answer_id)
    if found and getattr(found[1], kind) == value:
        return
    await send(service, identity, session, answer_id, kind, **{kind: value})
    if found:
        setattr(found[1], kind, value)


async def write(service: ChatService, identity: Identity, session: Session, words: str) -> None:
    """A correction or comment from the editor, which is closed once it is stored.

    Raises:
        NotSaved: it is empty, or it corrects nothing, or see `send`.
    """
    editing = session.editing
    if editing is None:
        return
    # Browsers give every line break as one character; spaces around a text carry no meaning here.
    words = words.replace("\r\n", "\n").strip()
    if not words:
        raise NotSaved("empty")
    if editing.kind == "correction" and words == editing.original.strip():
        raise NotSaved("unchanged")
    await send(service, identity, session, editing.answer_id, editing.kind, text=words)
    found = session.find(editing.answer_id)
    if found:
        setattr(found[1], editing.kind, words)
    session.editing = None


async def choose(service: ChatService, identity: Identity, session: Session, turn: Turn, position: int) -> None:
    """Make a blind choice (0 or 1), or leave it (-1): then the answer that was there before stays.

    Raises:
        NotSaved: see `send`.
    """
    if not turn.choosing:
        return
    if position not in (0, 1):
        turn.drafts = []
        return
    chosen = turn.drafts[position]
    await send(service, identity, session, chosen.id, "choice")
    turn.chosen = position
    turn.answer = replace(chosen)
