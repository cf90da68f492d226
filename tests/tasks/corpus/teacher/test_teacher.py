"""The teacher's client against a server that fails: order, retries, budget, cache, and what is never paid twice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tasks.core import layout
from tasks.core.files import write_manifest
from tasks.core.params import Params, TeacherParams, load_params
from tasks.corpus.teacher.teacher import (
    BUDGET_SPENT,
    Ask,
    Endpoint,
    Reply,
    ReplyCache,
    Teacher,
    TeacherError,
    Usage,
    dialogue,
    most_of,
    open_teacher,
)
from tests.teacher_server import TeacherServer, said

IDENTITY = {"url": "http://teacher/v1", "model": "teacher"}


def settings(**changes: Any) -> TeacherParams:
    values = {
        "kind": "url", "url": "http://teacher/v1", "model": "teacher", "temperature": 0.7, "max_tokens": 32,
        "concurrency": 4, "retries": 2, "timeout_seconds": 5, "budget_tokens": 1_000_000, "budget_cost": 0,
        "price_input": 0, "price_output": 0,
    }  # fmt: skip
    return TeacherParams(**(values | changes))


def teacher(
    server: TeacherServer | None, folder: Path, endpoint: dict[str, Any] | None = None, **changes: Any
) -> Teacher:
    @contextmanager
    def serve() -> Iterator[Endpoint]:
        assert server is not None, "nothing was to be asked"
        yield Endpoint(server.url, "teacher", **(endpoint or {}))

    return Teacher(settings(**changes), ReplyCache(folder, IDENTITY), serve)


def asks(count: int, tokens: int = 10) -> list[Ask]:
    return [Ask(messages=dialogue(f"Question {n}"), max_tokens=tokens, temperature=0.7) for n in range(count)]


def test_replies_come_in_the_order_of_the_requests_and_as_many_at_once_as_allowed(tmp_path: Path) -> None:
    with TeacherServer(delay=0.02) as server, teacher(server, tmp_path) as one:
        replies = one.ask(asks(40))
        assert [reply.text for reply in replies] == [f"An answer to: Question {n}" for n in range(40)]
        assert 1 < server.most_at_once <= 4
    assert replies[0] == Reply(
        text="An answer to: Question 0", finish_reason="stop", prompt_tokens=10, completion_tokens=5
    )


def test_the_key_goes_with_the_request_and_into_no_file(tmp_path: Path) -> None:
    with TeacherServer() as server, teacher(server, tmp_path, {"key": "secret"}) as one:
        one.ask(asks(1))
    (body,) = server.bodies
    assert body["authorization"] == "Bearer secret"
    # A seed makes vLLM on a processor end with an error, and some hosted endpoints refuse it.
    assert set(body) == {"model", "messages", "max_tokens", "temperature", "authorization"}
    assert "secret" not in next(tmp_path.rglob("*.json")).read_text()


def test_failures_on_the_way_are_tried_again_and_every_answer_is_paid_once(tmp_path: Path) -> None:
    faults = {0: 429, 2: 503, 4: "drop", 6: 500}
    with TeacherServer(faults=faults.get) as server, teacher(server, tmp_path) as one:
        replies = one.ask(asks(8))
    assert [reply.error for reply in replies] == [None] * 8
    assert server.requests == 12
    assert set(server.paid.values()) == {1}
    assert one.counts["failed"] == 0


def test_a_rerun_asks_nothing_and_needs_no_endpoint_unless_a_file_of_the_cache_is_damaged(tmp_path: Path) -> None:
    with TeacherServer() as server:
        with teacher(server, tmp_path) as one:
            before = one.ask(asks(5))
        with teacher(None, tmp_path) as again:
            assert again.ask(asks(5)) == before
            assert again.counts == {"cached": 5}
            # The budget counts what is used, so that a rerun stops where the first run did.
            assert again.usage == one.usage == Usage(5, 5, 50, 25)
        next(tmp_path.rglob("*.json")).write_text('{"text": "An an')
        with teacher(server, tmp_path) as third:
            assert third.ask(asks(5)) == before
        assert server.requests == 6


def test_equal_requests_are_asked_once_and_another_sample_is_another_request(tmp_path: Path) -> None:
    (ask,) = asks(1)
    with TeacherServer() as server, teacher(server, tmp_path) as one:
        first, second, third = one.ask([ask, ask, ask.model_copy(update={"sample": 1})])
        assert first == second == third
        assert server.requests == 2


def test_what_fails_for_good_is_a_reply_with_its_cause_and_is_asked_again_next_time(tmp_path: Path) -> None:
    with TeacherServer(faults={1: 400}.get) as server:
        with teacher(server, tmp_path, concurrency=1) as one:
            replies = one.ask(asks(3))
        assert [reply.error is None for reply in replies] == [True, False, True]
        assert "BadRequestError (400)" in str(replies[1].error)
        with teacher(server, tmp_path) as again:
            assert [reply.error for reply in again.ask(asks(3))] == [None] * 3
    assert server.requests == 4


FORMED = Ask(messages=dialogue("Question"), max_tokens=10, temperature=0.7, fields=("question", "answer"))


def test_a_reply_is_held_to_a_form_and_the_most_it_can_cost_counts_the_form(tmp_path: Path) -> None:
    with TeacherServer() as server, teacher(server, tmp_path) as one:
        one.ask([FORMED])
    asked = server.bodies[0]["response_format"]
    assert (asked["type"], asked["json_schema"]["strict"]) == ("json_schema", True)
    validator = jsonschema.Draft202012Validator(asked["json_schema"]["schema"])
    assert validator.is_valid({"items": [{"question": "Q", "answer": "A"}]})
    for wrong in (
        {},
        {"items": [{"question": "Q"}]},
        {"items": [{"question": "Q", "answer": 1}]},
        {"items": [], "x": 1},
    ):
        assert not validator.is_valid(wrong)
    plain = FORMED.model_copy(update={"fields": ()})
    assert most_of(FORMED).prompt_tokens - most_of(plain).prompt_tokens == len(json.dumps(FORMED.form))


def test_an_endpoint_that_refuses_the_form_is_asked_plainly_from_then_on_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formed = [FORMED.model_copy(update={"sample": n}) for n in range(4)]
    with TeacherServer(refuses=frozenset({"response_format"})) as server:
        with teacher(server, tmp_path, concurrency=1) as one:
            replies = one.ask(formed)
        assert [reply.error for reply in replies] == [None] * 4
        assert ["response_format" in body for body in server.bodies] == [True] + [False] * 4
        assert capsys.readouterr().err.count("without response_format") == 1
        # Nothing is asked again, and what was refused cost nothing.
        with teacher(None, tmp_path) as again:
            assert again.ask(formed) == replies
            assert again.usage == one.usage == Usage(4, 4, 40, 20)


def test_a_request_that_is_refused_with_and_without_a_form_fails_and_the_next_has_its_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formed = [FORMED.model_copy(update={"sample": n}) for n in range(3)]
    faults = {1: 400, 2: 400}
    with TeacherServer(faults=faults.get) as server, teacher(server, tmp_path, concurrency=1) as one:
        replies = one.ask(formed)
    assert [reply.error is None for reply in replies] == [True, False, True]
    assert ["response_format" in body for body in server.bodies] == [True, True, False, True]
    assert "without response_format" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "raw, text",
    [
        ("<think>The passage says 40.\n</think>\n\nThe fee is 40.", "The fee is 40."),
        ("So it is 40.</think>The fee is 40.", "The fee is 40."),
        ("<think></think><think>Once more.</think> The fee is 40.", "The fee is 40."),
        ("[THINK]40?[/THINK]The fee is 40.", "The fee is 40."),
        ("The fee is < 40.", "The fee is < 40."),
    ],
)
def test_thoughts_are_no_part_of_a_reply_from_the_cache_neither(tmp_path: Path, raw: str, text: str) -> None:
    with TeacherServer(answer=lambda _: raw) as server, teacher(server, tmp_path) as one:
        assert [reply.text for reply in one.ask(asks(1))] == [text]
    with teacher(None, tmp_path) as again:
        assert [reply.text for reply in again.ask(asks(1))] == [text]


def test_a_reply_of_thoughts_alone_is_a_failed_one(tmp_path: Path) -> None:
    with TeacherServer(answer=lambda _: "<think>The fee is 40, or") as server, teacher(server, tmp_path) as one:
        (reply,) = one.ask(asks(1))
    assert (reply.text, one.usage.answered) == ("", 0)
    assert "only thoughts came; raise construct.teacher.max_tokens" in str(reply.error)


def test_a_time_out_ends_in_a_reply_that_says_so(tmp_path: Path) -> None:
    faults = {1: "slow"}
    quick = {"concurrency": 1, "retries": 0, "timeout_seconds": 0.3}
    with TeacherServer(faults=faults.get) as server, teacher(server, tmp_path, **quick) as one:
        replies = one.ask(asks(2))
    assert replies[0].error is None
    assert "APITimeoutError" in str(replies[1].error)


def test_a_server_that_knows_the_requests_keys_is_paid_once_though_a_reply_was_lost(tmp_path: Path) -> None:
    with TeacherServer(faults={0: "slow"}.get, remembers=True) as server:
        with teacher(server, tmp_path, timeout_seconds=0.3) as one:
            assert one.ask(asks(1))[0].error is None
        while server.at_once:
            time.sleep(0.01)
        assert server.requests == 2
        assert list(server.paid.values()) == [1]


@pytest.mark.parametrize(
    "answer", [{}, {"choices": []}, {"choices": None}, {"choices": [{}]}, {"choices": [{"message": {"content": 5}}]}]
)
def test_what_is_no_chat_completion_is_an_error_and_no_answer(tmp_path: Path, answer: dict[str, Any]) -> None:
    def reply(messages: list[dict[str, str]]) -> Any:
        return answer if messages[0]["content"] == "Question 1" else "yes"

    with TeacherServer(reply) as server, teacher(server, tmp_path) as one:
        assert [bool(found.error) for found in one.ask(asks(2))] == [False, True]


def test_a_server_that_counts_no_tokens_is_charged_an_estimate(tmp_path: Path) -> None:
    answer = said("十二个字节") | {"usage": None}
    with TeacherServer(lambda messages: answer) as server, teacher(server, tmp_path) as one:
        (reply,) = one.ask(asks(1))
    # "Question 0" has 10 bytes, five Chinese characters 15; three bytes a token, rounded up.
    assert (reply.prompt_tokens, reply.completion_tokens) == (4, 5)


def test_a_declined_answer_and_half_characters_are_read_as_they_are(tmp_path: Path) -> None:
    declined = said("")
    declined["choices"][0]["message"] = {"role": "assistant", "content": None, "refusal": "No."}
    answers = {"Question 0": declined, "Question 1": "half \ud83d", "Question 2": said("cut", finish="length")}
    with TeacherServer(lambda messages: answers[messages[0]["content"]]) as server, teacher(server, tmp_path) as one:
        first, second, third = one.ask(asks(3))
    assert (first.text, first.finish_reason) == ("No.", "content_filter")
    assert second.text == "half ?"
    assert third.finish_reason == "length"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_endpoint_that_can_never_work_is_an_error_that_says_what_to_do(tmp_path: Path, status: int) -> None:
    raised = pytest.raises(TeacherError, match="FLYWHEEL_TEACHER_KEY")
    with TeacherServer(faults=lambda number: status) as server, teacher(server, tmp_path) as one, raised:
        one.ask(asks(3))


def test_an_endpoint_that_is_down_from_the_beginning_is_an_error(tmp_path: Path) -> None:
    raised = pytest.raises(TeacherError, match=r"answered none of 3 requests.*See engine\.log")
    endpoint = {"log": "engine.log"}
    with (
        TeacherServer(faults=lambda number: 500) as server,
        teacher(server, tmp_path, endpoint, retries=0) as one,
        raised,
    ):
        one.ask(asks(3))


def test_an_endpoint_that_goes_down_is_left_alone_after_a_row_of_failures(tmp_path: Path) -> None:
    faults = lambda number: 500 if number >= 10 else None  # noqa: E731
    # One at a time: beside others, a slow answer would come among the failures and begin the row anew.
    with TeacherServer(faults=faults) as server, teacher(server, tmp_path, retries=0, concurrency=1) as one:
        with pytest.raises(TeacherError, match="16 times in a row"):
            one.ask(asks(500))
        assert server.requests == 10 + 16


def test_a_key_changes_with_everything_that_decides_the_reply() -> None:
    ask = Ask(messages=dialogue("Q"), max_tokens=8, temperature=0.5)
    changed = [{"messages": dialogue("R")}, {"max_tokens": 9}, {"temperature": 0.6}, {"sample": 1}]
    keys = {ReplyCache(Path(), IDENTITY).key(ask.model_copy(update=change)) for change in [{}, *changed]}
    keys.add(ReplyCache(Path(), IDENTITY | {"model": "other"}).key(ask))
    assert len(keys) == 6


def test_the_budget_in_tokens_stops_at_the_same_request_with_and_without_a_cache(tmp_path: Path) -> None:
    # A request can cost 10 bytes + 8 + 64 asked and 10 answered, 92; it really costs 15. With 200 allowed, the eighth
    # is the last for which 15 × (n - 1) + 92 ≤ 200.
    assert most_of(asks(1)[0]) == Usage(0, 0, 82, 10)
    for server_is_there in (True, False):
        with TeacherServer() as server:
            with teacher(server if server_is_there else None, tmp_path, budget_tokens=200) as one:
                replies = one.ask(asks(20))
                assert [reply.error for reply in replies] == [None] * 8 + [BUDGET_SPENT] * 12
                assert one.exhausted
                assert one.usage[2:] == (80, 40)
            assert server.requests == (8 if server_is_there else 0)


def test_the_budget_in_money_counts_both_prices(tmp_path: Path) -> None:
    # A million tokens cost 1 asked and 10 answered: a request 60 millionths (10 + 5 × 10), at most 182 (82 + 10 × 10).
    money = {"price_input": 1, "price_output": 10, "budget_cost": 310e-6}
    with TeacherServer() as server, teacher(server, tmp_path, concurrency=1, **money) as one:
        replies = one.ask(asks(6))
    # 60 (n - 1) + 182 ≤ 310 up to the third.
    assert [reply.error is None for reply in replies] == [True] * 3 + [False] * 3


def test_progress_is_said_line_by_line_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with TeacherServer() as server, teacher(server, tmp_path) as one:
        one.ask(asks(30), "questions")
    assert capsys.readouterr().err.splitlines() == [f"questions: {n} of 30" for n in range(3, 31, 3)]


def local(root: Path, home: Path, engine: str) -> Params:
    """A base model of one file, and settings that make it the teacher."""
    (home / layout.BASE_MODEL).mkdir(parents=True)
    (home / layout.BASE_MODEL / "config.json").write_text("{}")
    write_manifest(home / layout.BASE_MODEL)
    params = load_params(root / layout.PARAMS)
    changed = {"kind": "local", "url": "", "model": ""}
    construct = params.construct_.model_copy(update={"teacher": settings().model_copy(update=changed)})
    return params.model_copy(
        update={"construct_": construct, "engine": params.engine.model_copy(update={"kind": engine})}
    )


def test_the_local_teacher_is_an_engine_on_the_base_model_started_when_it_is_needed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = local(root, tmp_path, "vllm")
    started: list[Path] = []

    class Engine:
        def __init__(self, settings: object, base_model: Path, home: Path, port: int, name: str) -> None:
            started.append(base_model)
            self.url = server.url.removesuffix("/v1")
            self.log = home / "teacher.log"

        def __enter__(self) -> Engine:
            return self

        def __exit__(self, *_: object) -> None:
            started.clear()

    monkeypatch.setattr("tasks.corpus.teacher.teacher.EngineProcess", Engine)
    with TeacherServer() as server, open_teacher(params, tmp_path) as one:
        assert started == []
        assert one.ask(asks(1))[0].text == "An answer to: Question 0"
        assert started == [tmp_path / layout.BASE_MODEL]
    assert started == []
    assert server.bodies[0]["model"] == "base"
    # Another model is another teacher: nothing of the first one's is taken for its own.
    (tmp_path / layout.BASE_MODEL / "config.json").write_text('{"other": 1}')
    write_manifest(tmp_path / layout.BASE_MODEL)
    with TeacherServer() as server, open_teacher(params, tmp_path) as one:
        one.ask(asks(1))
    assert server.requests == 1


def test_an_engine_that_runs_elsewhere_is_named_as_the_teacher_and_not_started(root: Path, tmp_path: Path) -> None:
    raised = pytest.raises(TeacherError, match=r"construct\.teacher")
    with open_teacher(local(root, tmp_path, "url"), tmp_path) as one, raised:
        one.ask(asks(1))
