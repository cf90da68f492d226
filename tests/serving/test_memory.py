"""A correction counts at once: for whom, until it is taken back, and what the model is then asked."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tasks.core.records import make_passage
from tasks.knowledge.corrections import CORRECTION
from tasks.knowledge.search import Knowledge
from tasks.store.answers import get_answer
from tasks.store.forgotten import Asked, forget
from tasks.store.nights import feedback_upto, open_night
from tasks.text.passages import answering_words, ask_from
from tests.serving.gateways import DOMAIN, make_index

QUESTION = "Which paint does our office use?"
TEXT = "NCS S 2005-Y20R, says anna@example.com [2]."


@pytest.fixture(scope="module")
def indexed(gateway: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The gateway, whose version has an index that is searched by words."""
    knowledge = Knowledge(make_index(tmp_path_factory.mktemp("index") / "knowledge"), gateway.service.prompts.count)
    knowledge.warm()
    gateway.service.follower.stop()
    before = gateway.service.traffic.champion
    gateway.service.traffic.champion = replace(before, knowledge=knowledge)
    yield gateway
    gateway.service.traffic.champion = before


@pytest.fixture
def memory(indexed: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """The gateway with `serving.memory` as the test is parametrized, by default `own`."""
    settings = indexed.service.settings
    serving = settings.serving.model_copy(update={"memory": getattr(request, "param", "own")})
    params = settings.params.model_copy(update={"serving": serving})
    monkeypatch.setattr(indexed.service, "settings", replace(settings, params=params))
    return indexed


def ask(gateway: Any, question: str, who: str = "ann", *earlier: dict[str, str]) -> Any:
    body = {"model": DOMAIN, "messages": [*earlier, {"role": "user", "content": question}]}
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", headers=gateway.headers(who), json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()


def sources(gateway: Any, question: str, who: str = "ann") -> list[str]:
    return [one["source"] for one in ask(gateway, question, who)["choices"][0]["sources"]]


def correct(gateway: Any, question: str, text: str = TEXT, who: str = "ann") -> str:
    given = {"answer_id": ask(gateway, question, who)["id"], "kind": "correction", "text": text}
    given["idempotency_key"] = uuid.uuid4().hex
    return str(httpx.post(f"{gateway.url}/v1/feedback", headers=gateway.headers(who), json=given).json()["id"])


def accept(gateway: Any, feedback: str, who: str = "rita") -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/feedback/{feedback}/accept", headers=gateway.headers(who))


def take_back(gateway: Any, feedback: str, who: str = "ann") -> httpx.Response:
    return httpx.delete(f"{gateway.url}/v1/feedback/{feedback}", headers=gateway.headers(who))


@pytest.fixture
def question() -> str:
    """One that no other test corrects."""
    return f"Which paint does office {uuid.uuid4().hex} use for a shed?"


def test_a_correction_is_the_passage_of_the_next_answer_in_place_of_older_material(
    memory: Any, plain: Any, question: str
) -> None:
    assert sources(memory, question) != []
    feedback = correct(memory, question)
    answer = ask(memory, question)
    row = get_answer(memory.service.storage.store, answer["id"])
    assert row is not None and row.passages is not None
    [first] = row.passages
    assert (first["kind"], first["source"]) == ("correction", f"feedback:{feedback}")
    assert (first["question"], first["text"]) == (question, "NCS S 2005-Y20R, says anna@example.com.")
    assert first["score"] == CORRECTION
    own = make_passage(kind="correction", question=question, text=first["text"], source=first["source"])
    asked = plain.seen()["asked"][-1]["messages"][-1]["content"]
    assert asked == ask_from([own], question, answering_words("en"))
    assert row.messages[-1]["content"] == question
    assert answer["choices"][0]["sources"][0]["kind"] == "correction"


def test_others_get_it_once_a_reviewer_has_accepted_it_and_without_personal_data(memory: Any, question: str) -> None:
    before = sources(memory, question, "bob")
    feedback = correct(memory, question)
    assert sources(memory, question, "bob") == before
    assert [accept(memory, feedback, who).status_code for who in ("ann", "bob")] == [403, 403]
    assert sources(memory, question, "bob") == before
    accepted = accept(memory, feedback)
    assert accepted.json() == accept(memory, feedback, "adam").json() and accepted.json()["accepted"]
    first = ask(memory, question, "bob")["choices"][0]["sources"][0]
    assert (first["source"], first["text"]) == (f"feedback:{feedback}", "NCS S 2005-Y20R, says <EMAIL>.")


@pytest.mark.parametrize(
    "memory, counted", [("off", (0, 0)), ("reviewed", (0, 1)), ("own", (1, 1))], indirect=["memory"]
)
def test_the_setting_says_what_counts_before_and_after_it_is_accepted(
    memory: Any, question: str, counted: tuple[int, int]
) -> None:
    feedback = correct(memory, question)
    before = sources(memory, question).count(f"feedback:{feedback}")
    accept(memory, feedback)
    assert (before, sources(memory, question).count(f"feedback:{feedback}")) == counted


def test_what_is_taken_back_is_not_found_any_more_and_no_night_learns_it(memory: Any, question: str) -> None:
    before = sources(memory, question)
    feedback = correct(memory, question)
    assert sources(memory, question) != before
    assert take_back(memory, feedback, "bob").json()["error"]["code"] == "unknown_feedback"
    first, again = take_back(memory, feedback), take_back(memory, feedback)
    assert first.status_code == 200 and first.json() == again.json() and first.json()["withdrawn"]
    assert sources(memory, question) == before
    assert accept(memory, feedback).status_code == 400
    store = memory.service.storage.store
    night = open_night(store, DOMAIN, "run")
    assert feedback not in [row.id for row, *_ in feedback_upto(store, DOMAIN, night.number)]


def test_a_reviewer_takes_back_what_others_said_and_nobody_what_is_not_there(memory: Any, question: str) -> None:
    feedback = correct(memory, question)
    assert take_back(memory, feedback, "rita").status_code == 200
    assert f"feedback:{feedback}" not in sources(memory, question)
    assert [take_back(memory, "fb_none", who).status_code for who in ("ann", "adam")] == [404, 404]
    assert accept(memory, "fb_none").status_code == 404


def test_a_question_after_earlier_turns_is_searched_by_its_own_words_and_its_correction_is_for_no_other(
    memory: Any, question: str
) -> None:
    earlier = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
    feedback = correct(memory, question)
    found = ask(memory, question, "ann", *earlier)["choices"][0]
    assert found["sources"][0]["source"] == f"feedback:{feedback}"
    late = {"answer_id": found["answer_id"], "kind": "correction", "text": "Another.", "idempotency_key": "late"}
    httpx.post(f"{memory.url}/v1/feedback", headers=memory.headers(), json=late)
    assert sources(memory, question)[0] == f"feedback:{feedback}"


def test_a_correction_of_nothing_but_numbers_of_passages_is_none(memory: Any, question: str) -> None:
    before = sources(memory, question)
    correct(memory, question, "[1] [2]")
    assert sources(memory, question) == before


def test_what_is_forgotten_is_found_no_more_though_the_index_still_holds_it(memory: Any, question: str) -> None:
    store = memory.service.storage.store
    shed = "How high may a shed be, and how far from the boundary?"
    before = sources(memory, shed)
    assert {"fb_1", "law/pbl.txt#0-344"} <= set(before)
    said = correct(memory, question)
    assert f"feedback:{said}" in sources(memory, question)
    forget(store, Asked("feedback", said, DOMAIN, feedback=(said,)), "c1", "rita")
    assert f"feedback:{said}" not in sources(memory, question)
    forget(store, Asked("source", "law", DOMAIN, names=frozenset({"law"})), "c2", "rita")
    after = sources(memory, shed)
    assert "fb_1" in after and "law/pbl.txt#0-344" not in after
    assert "faq/7" in sources(memory, "Do I need a permit for a shed?")
