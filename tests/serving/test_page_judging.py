from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from serving.errors import ServiceError
from serving.page import answering, judging
from serving.page.answering import explain
from serving.page.conversation import Answer, Editing, Session, Turn
from serving.page.judging import NotSaved
from serving.service import Delta, Done
from tasks.store.errors import StoreUnavailable
from tasks.store.identities import Identity

ANNA = Identity("11111111", "anna", "chat")


class Service:
    """ChatService's interface: answers "<who>: <last question>", notes feedback, fails as often as it is told to."""

    def __init__(self, drafts: str = "sample") -> None:
        self.settings = SimpleNamespace(serving=SimpleNamespace(drafts=drafts))
        self.failures: list[BaseException] = []
        self.feedbacks: list[Any] = []
        self.streams: list[dict[str, Any]] = []
        self.drafts: list[tuple[str, str]] = []
        self.hang = False
        self.cancelled = 0

    def challenger(self) -> object:
        return object()

    async def open_draft(self, conversation: str, how: str) -> str:
        self.drafts.append((conversation, how))
        return "draft-1"

    async def stream(self, identity: Identity, messages: list[dict[str, str]], **wanted: Any) -> AsyncIterator[Any]:
        if self.failures:
            raise self.failures.pop(0)
        self.streams.append({"messages": messages, **wanted})
        number = len(self.streams)
        yield Delta(f"{wanted['who']}: ")
        try:
            while self.hang:
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        yield Delta(messages[-1]["content"])
        yield Done(f"answer-{number}", "conv-1", "8" if wanted["who"] == "challenger" else "7", "stop", 1, 1)

    async def feedback(self, identity: Identity, given: Any) -> None:
        self.feedbacks.append(given)
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(answering, "FRAME_SECONDS", 0.005)


def shown() -> Session:
    return Session(conversation="conv-1", turns=[Turn("How long?", answer=Answer(id="a1", text="Ten weeks."))])


def run(work: Any) -> None:
    asyncio.run(work)


async def drawn(frames: AsyncIterator[None]) -> int:
    return len([frame async for frame in frames])


def test_every_click_has_a_key_of_its_own() -> None:
    service, session = Service(), shown()
    for value in (3, 4, 3):
        run(judging.judge(service, ANNA, session, "a1", "rating", value))  # type: ignore[arg-type]
    assert [given.rating for given in service.feedbacks] == [3, 4, 3]
    assert len({given.key for given in service.feedbacks}) == 3 and session.pending == {}


def test_a_failed_click_is_tried_again_with_the_same_key_and_so_is_the_next_click() -> None:
    service, session = Service(), shown()
    away = ServiceError(503, "store_unavailable", "away")
    service.failures = [away, StoreUnavailable("away"), away]
    with pytest.raises(NotSaved, match="not_saved"):
        run(judging.judge(service, ANNA, session, "a1", "thumb", 1))  # type: ignore[arg-type]
    assert session.turns[0].answer.thumb == 0
    run(judging.judge(service, ANNA, session, "a1", "thumb", 1))  # type: ignore[arg-type]
    assert len(service.feedbacks) == 4 and len({given.key for given in service.feedbacks}) == 1
    assert session.turns[0].answer.thumb == 1 and session.pending == {}


def test_saying_the_same_again_sends_nothing() -> None:
    service, session = Service(), shown()
    for _ in range(2):
        run(judging.judge(service, ANNA, session, "a1", "thumb", -1))  # type: ignore[arg-type]
    assert len(service.feedbacks) == 1


def test_a_refusal_is_not_tried_again() -> None:
    service, session = Service(), shown()
    service.failures = [ServiceError(400, "role_marker", "text holds a role marker")]
    session.editing = Editing("a1", "comment", "")
    with pytest.raises(NotSaved) as refused:
        run(judging.write(service, ANNA, session, "<|im_start|>"))  # type: ignore[arg-type]
    assert (refused.value.key, refused.value.reason) == ("not_accepted", "text holds a role marker")
    assert len(service.feedbacks) == 1 and session.editing is not None


@pytest.mark.parametrize(("words", "why"), [("  \n", "empty"), ("Ten weeks.\r\n", "unchanged")])
def test_a_correction_must_correct_something(words: str, why: str) -> None:
    service, session = Service(), shown()
    session.editing = Editing("a1", "correction", "Ten weeks.")
    with pytest.raises(NotSaved, match=why):
        run(judging.write(service, ANNA, session, words))  # type: ignore[arg-type]
    assert service.feedbacks == []


def test_feedback_of_a_tab_whose_session_was_lost_is_stored_all_the_same() -> None:
    service, session = Service(), Session(editing=Editing("a9", "correction", "Ten weeks."))
    run(judging.judge(service, ANNA, session, "a9", "rating", 5))  # type: ignore[arg-type]
    run(judging.write(service, ANNA, session, "Twenty weeks."))  # type: ignore[arg-type]
    assert [(given.answer_id, given.kind) for given in service.feedbacks] == [("a9", "rating"), ("a9", "correction")]


def test_values_that_are_no_judgement_are_refused() -> None:
    for kind, value in (("thumb", 0), ("rating", 6), ("choice", 1)):
        with pytest.raises(ValueError, match="no judgement"):
            run(judging.judge(Service(), ANNA, shown(), "a1", kind, value))  # type: ignore[arg-type]


@pytest.mark.parametrize(("setting", "versions"), [("sample", {"7"}), ("challenger", {"7", "8"})])
def test_two_drafts_are_asked_for_in_random_order_and_the_choice_is_stored(setting: str, versions: set[str]) -> None:
    orders = set()
    for _ in range(40):
        service, session = Service(setting), shown()
        run(drawn(answering.answer_twice(service, ANNA, session, 0)))  # type: ignore[arg-type]
        turn = session.turns[0]
        assert turn.choosing and {draft.version for draft in turn.drafts} == versions
        assert {stream["position"] for stream in service.streams} == {0, 1}
        assert {stream["draft"] for stream in service.streams} == {"draft-1"}
        by_position = {stream["position"]: stream["who"] for stream in service.streams}
        orders.add((by_position[0], by_position[1]))
        run(judging.choose(service, ANNA, session, turn, 1))  # type: ignore[arg-type]
        assert [(given.kind, given.answer_id) for given in service.feedbacks] == [("choice", turn.drafts[1].id)]
        assert turn.answer.text == f"{by_position[1]}: How long?"
    assert orders == {("champion", setting), (setting, "champion")}


def test_leaving_the_choice_keeps_the_answer_and_says_nothing() -> None:
    service, session = Service(), shown()
    run(drawn(answering.answer_twice(service, ANNA, session, 0)))  # type: ignore[arg-type]
    run(judging.choose(service, ANNA, session, session.turns[0], -1))  # type: ignore[arg-type]
    assert session.turns[0].answer.text == "Ten weeks." and not session.turns[0].drafts and not service.feedbacks


def test_a_draft_that_fails_leaves_the_answer_that_was_there() -> None:
    service, session = Service(), shown()
    service.failures = [ServiceError(503, "engine_unavailable", "away")]
    run(drawn(answering.answer_twice(service, ANNA, session, 0)))  # type: ignore[arg-type]
    assert not session.turns[0].drafts and session.turns[0].error == "engine_away" and not session.busy
    assert session.turns[0].answer.text == "Ten weeks."


def test_a_conversation_goes_on_from_what_was_corrected() -> None:
    service, session = Service(), shown()
    session.turns[0].answer.correction = "Twenty weeks."
    run(drawn(answering.answer_question(service, ANNA, session, "Why?")))  # type: ignore[arg-type]
    assert [message["content"] for message in service.streams[0]["messages"]] == ["How long?", "Twenty weeks.", "Why?"]
    assert session.turns[1].answer.text == "champion: Why?" and session.turns[1].answer.id == "answer-1"


def test_stopping_ends_a_stream_that_hangs_and_keeps_its_words() -> None:
    async def stopped() -> None:
        service, session = Service(), shown()
        service.hang = True
        async for _ in answering.answer_question(service, ANNA, session, "Why?"):  # type: ignore[arg-type]
            session.stopping = bool(session.turns[-1].answer.text)
        answer = session.turns[-1].answer
        assert (answer.text, answer.finish, answer.id) == ("champion: ", "cancelled", "")
        assert service.cancelled == 1 and not session.busy

    run(stopped())


def test_a_closed_tab_ends_its_streams() -> None:
    async def closed() -> None:
        service, session = Service(), shown()
        service.hang = True
        frames = answering.answer_question(service, ANNA, session, "Why?")  # type: ignore[arg-type]
        while not service.streams:
            await anext(frames)
        await frames.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
        assert service.cancelled == 1 and not session.busy

    run(closed())


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (ServiceError(429, "rate_limit_exceeded", ""), "rate_limited"),
        (ServiceError(503, "engine_unavailable", ""), "engine_away"),
        (ServiceError(400, "context_length_exceeded", ""), "too_long"),
        (ServiceError(401, "invalid_api_key", ""), "signed_out"),
        (ServiceError(400, "role_marker", "why"), "not_accepted"),
        (ServiceError(500, "internal_error", ""), "failed"),
        (RuntimeError("secret"), "failed"),
    ],
)
def test_every_error_has_words_for_people(error: Exception, key: str) -> None:
    assert explain(error) == (key, "why" if key == "not_accepted" else "")
