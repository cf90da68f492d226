"""Answers stream into the page's session: one for a question, two at once for a blind choice.

The service records every answer itself, the broken ones too. A generator here yields whenever there is something new
to draw, some twelve times a second, and ends its streams however it ends itself: stopped, closed tab or error.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine
from typing import TYPE_CHECKING, Any

from serving.errors import ServiceError
from serving.page.conversation import Answer, Session, Turn

if TYPE_CHECKING:
    from serving.service import ChatService
    from tasks.store.identities import Identity

FRAME_SECONDS = 0.08
SAMPLE_TEMPERATURE = 0.9
LOG = logging.getLogger(__name__)


async def answer_question(
    service: ChatService, identity: Identity, session: Session, question: str
) -> AsyncIterator[None]:
    """Ask a new question; an open choice before it is left unmade."""
    for turn in session.turns:
        if turn.choosing:
            turn.drafts = []
    session.turns.append(Turn(question))
    async for _ in answer_again(service, identity, session, len(session.turns) - 1):
        yield


async def answer_again(service: ChatService, identity: Identity, session: Session, number: int) -> AsyncIterator[None]:
    """Answer turn `number`, which has no answer yet or one that failed."""
    turn = session.turns[number]
    turn.answer, turn.error, turn.reason = Answer(), "", ""
    work = _fill(service, identity, session, number, turn.answer)
    async for _ in _drawn(session, turn, [work]):
        yield


async def answer_twice(service: ChatService, identity: Identity, session: Session, number: int) -> AsyncIterator[None]:
    """Two fresh drafts for turn `number`, in random order; the answer that was there stays until one is chosen."""
    turn = session.turns[number]
    how = "challenger" if service.settings.serving.drafts == "challenger" and service.challenger() else "sample"
    writers = random.sample(["champion", how], 2)
    turn.error, turn.reason, turn.chosen = "", "", None
    turn.drafts = [Answer(position=0), Answer(position=1)]
    try:
        if session.conversation is None:
            raise ServiceError(409, "no_conversation", "nothing was answered in this conversation yet")
        draft = await service.open_draft(session.conversation, how)
        work = [
            _fill(service, identity, session, number, answer, draft=draft, who=who)
            for answer, who in zip(turn.drafts, writers, strict=True)
        ]
        async for _ in _drawn(session, turn, work):
            yield
    except ServiceError as error:
        turn.error, turn.reason = explain(error)
    finally:
        if not all(answer.id and answer.text for answer in turn.drafts):
            turn.drafts = []
    yield


async def _fill(
    service: ChatService,
    identity: Identity,
    session: Session,
    number: int,
    answer: Answer,
    draft: str | None = None,
    who: str = "champion",
) -> None:
    """Let one stream flow into `answer`."""
    from serving.service import Done

    turn, sampled = session.turns[number], dict[str, Any]()
    if who == "sample":
        sampled = {"temperature": SAMPLE_TEMPERATURE, "seed": random.randrange(2**31)}
    stream = service.stream(
        identity,
        session.messages(number),
        conversation=session.conversation,
        draft=draft,
        position=answer.position,
        who=who,
        **sampled,
    )
    async for event in stream:
        if isinstance(event, Done):
            answer.version, answer.finish = event.version, event.finish_reason
            answer.id = event.answer_id
            if any(shown is turn for shown in session.turns):  # not if a new conversation was begun meanwhile
                session.conversation = event.conversation_id
        else:
            answer.text += event.text


async def _drawn(session: Session, turn: Turn, work: list[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run the streams together, yielding once a frame; an error becomes the turn's words."""
    session.busy, session.stopping = True, False
    running = {asyncio.create_task(item) for item in work}
    tasks = list(running)
    try:
        while running and not session.stopping:
            yield
            _, running = await asyncio.wait(running, timeout=FRAME_SECONDS)
    finally:
        session.busy = False
        for task in running:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, asyncio.CancelledError):
            turn.answer.finish = turn.answer.finish or "cancelled"
        elif isinstance(result, BaseException):
            turn.error, turn.reason = explain(result)
    yield


def explain(error: BaseException) -> tuple[str, str]:
    """The key of the text that tells a person what went wrong, and a reason to fill in, or nothing."""
    if not isinstance(error, ServiceError):
        LOG.error("the page failed", exc_info=error)
        return "failed", ""
    if error.status == 429:
        return "rate_limited", ""
    if error.status in (401, 403):
        return "signed_out", ""
    if error.status in (408, 502, 503, 504):
        return "engine_away", ""
    if error.status == 413 or "length" in error.code or "too_long" in error.code or "too_large" in error.code:
        return "too_long", ""
    return ("not_accepted", error.message) if error.status < 500 else ("failed", "")
