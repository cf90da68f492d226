"""What the page does when something is clicked. Each handler asks anew who is there: a disabled key stops at once.

A handler changes the tab's session and returns what Gradio is to draw; words for a person come from texts.py only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from serving.page import answering, judging
from serving.page.conversation import Editing, Session
from serving.page.judging import NotSaved
from serving.page.texts import LANGUAGES, choose_language, text
from serving.page.transcript import render

if TYPE_CHECKING:
    from starlette.requests import Request

    from serving.service import ChatService
    from tasks.store.identities import Identity

KINDS = ("correction", "comment")
Frames = AsyncIterator[list[Any]]


class Handlers:
    """The handlers of one domain's page, around the service and the question who is there."""

    def __init__(
        self,
        service: ChatService,
        who_is_there: Callable[[Request], Awaitable[Identity | None]],
        title: str,
        examples: list[str],
    ) -> None:
        self.service, self.who_is_there, self.title, self.examples = service, who_is_there, title, examples

    def draw(self, session: Session) -> str:
        """The transcript as HTML."""
        return render(session, self.examples)

    def heading(self, language: str) -> str:
        """The page's heading as HTML."""
        return f'<h1>{escape(self.title)}</h1><p class="fw-soft">{escape(text("footer", language))}</p>'

    async def _identity(self, request: gr.Request, session: Session) -> Identity | None:
        identity = await self.who_is_there(request.request) if request.request is not None else None
        if identity is None:
            gr.Warning(text("signed_out", session.language), title="")
        return identity

    # Language

    def open(self, session: Session, remembered: str | None, request: gr.Request) -> list[Any]:
        """A tab opens: in the language chosen last, or else the browser's."""
        wanted = remembered if remembered in LANGUAGES else choose_language(request.headers.get("accept-language", ""))
        return self._worded(session, str(wanted), remembered or "")

    def switch(self, session: Session, language: str) -> list[Any]:
        """Another language was chosen."""
        return self._worded(session, language, language)

    def _worded(self, session: Session, language: str, remembered: str) -> list[Any]:
        """Every component that has words, in the order of blocks.py."""
        session.language = language if language in LANGUAGES else "en"
        session.status = ""

        def say(key: str) -> str:
            return text(key, session.language)

        kind = session.editing.kind if session.editing else "correction"
        return [
            self.draw(session),
            self.heading(session.language),
            gr.update(value=session.language, label=say("language")),
            remembered,
            say("new_conversation"),
            gr.update(label=say("question"), placeholder=say("question_placeholder")),
            say("send"),
            say("stop"),
            gr.update(label=say(f"{kind}_label")),
            say("cancel"),
            say(f"save_{kind}"),
        ]

    # Asking

    async def ask(self, session: Session, question: str, request: gr.Request) -> Frames:
        """A question was sent."""
        identity = await self._identity(request, session)
        question = question.strip()
        if identity is None or not question or session.busy:
            yield [gr.skip()] * 4
            return
        async for frame in self._frames(session, answering.answer_question(self.service, identity, session, question)):
            yield frame
            frame[1] = gr.skip()

    async def ask_by_button(self, session: Session, request: gr.Request, event: gr.EventData) -> Frames:
        """An example, another try, or a second draft."""
        identity = await self._identity(request, session)
        what, value = str(event.what), str(event.value)
        known = value in self.examples if what == "example" else value in map(str, range(len(session.turns)))
        if identity is None or session.busy or not known:
            yield [gr.skip()] * 4
            return
        if what == "example":
            frames = answering.answer_question(self.service, identity, session, value)
        else:
            answer = answering.answer_again if what == "retry" else answering.answer_twice
            frames = answer(self.service, identity, session, int(value))
        async for frame in self._frames(session, frames, clear=False):
            yield frame

    async def _frames(self, session: Session, drawn: AsyncIterator[None], clear: bool = True) -> Frames:
        """Frames of a streaming answer; the first one swaps the buttons and empties the box, the last swaps back."""
        session.status, first = "", True
        async for _ in drawn:
            swap = [gr.update(visible=False), gr.update(visible=True)] if first else [gr.skip(), gr.skip()]
            yield [self.draw(session), "" if first and clear else gr.skip(), *swap]
            first = False
        yield [self.draw(session), gr.skip(), gr.update(visible=True), gr.update(visible=False)]

    def halt(self, session: Session) -> None:
        """Stop was clicked."""
        session.stopping = True

    def begin(self, session: Session) -> list[Any]:
        """A new conversation; an answer that is being written is stopped."""
        session.stopping = True
        session.conversation, session.turns, session.editing, session.status = None, [], None, ""
        return [self.draw(session), *self._closed(session)[1:], ""]

    # Judging

    async def judge(self, session: Session, request: gr.Request, event: gr.EventData) -> Any:
        """A thumb or a star."""
        identity = await self._identity(request, session)
        if identity is None:
            return gr.skip()
        await self._said(
            session,
            judging.judge(self.service, identity, session, str(event.answer), str(event.what), int(event.value)),
        )
        return self._drawn_if_known(session)

    async def choose(self, session: Session, request: gr.Request, event: gr.EventData) -> Any:
        """A draft was chosen, or none."""
        identity = await self._identity(request, session)
        number = int(event.turn)
        if identity is None or session.busy or not 0 <= number < len(session.turns):
            return gr.skip()
        turn = session.turns[number]
        await self._said(session, judging.choose(self.service, identity, session, turn, int(event.value)))
        return self._drawn_if_known(session)

    async def _said(self, session: Session, work: Any) -> bool:
        """Whether feedback was stored; what was not is told at once."""
        session.status = ""
        try:
            await work
        except NotSaved as error:
            words = text(error.key, session.language, **({"reason": error.reason} if error.reason else {}))
            gr.Warning(words, title="")
            return False
        session.status = text("saved", session.language)
        return True

    def _drawn_if_known(self, session: Session) -> Any:
        """The transcript, unless this tab's session was lost (a restart): then what the tab shows stays."""
        return self.draw(session) if session.turns else gr.skip()

    # The editor

    def edit(self, session: Session, event: gr.EventData) -> list[Any]:
        """Correct or comment: the editor opens in the place of the question box, filled with what is there."""
        kind, answer_id = str(event.what), str(event.answer)
        if kind not in KINDS or not answer_id or session.busy:
            return [gr.skip()] * 5
        found = session.find(answer_id)
        now = found[1].final if found else str(event.text)
        session.editing = Editing(answer_id, kind, now)
        session.status = ""
        filled = now if kind == "correction" else (found[1].comment if found else "")
        return [
            self._drawn_if_known(session),
            gr.update(visible=False),
            gr.update(visible=True),
            gr.update(value=filled, label=text(f"{kind}_label", session.language)),
            text(f"save_{kind}", session.language),
        ]

    async def write(self, session: Session, words: str, request: gr.Request) -> list[Any]:
        """The editor's text is saved. What could not be saved stays in the editor."""
        identity = await self._identity(request, session)
        if identity is None or not await self._said(session, judging.write(self.service, identity, session, words)):
            return [gr.skip()] * 5
        return self._closed(session)

    def close(self, session: Session) -> list[Any]:
        """The editor is closed without saving."""
        session.editing, session.status = None, ""
        return self._closed(session)

    def _closed(self, session: Session) -> list[Any]:
        return [
            self._drawn_if_known(session),
            gr.update(visible=True),
            gr.update(visible=False),
            gr.update(value=""),
            gr.skip(),
        ]
