"""Who is signed in, conversations as they are stored, and two drafts for a blind choice."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tasks.store.answers import answers_of, get_answer

MESSAGES = [{"role": "user", "content": "How?"}]


def post(gateway: Any, path: str, body: dict[str, Any], who: str = "ann") -> httpx.Response:
    return httpx.post(gateway.url + path, headers=gateway.headers(who), json=body)


def ask(gateway: Any) -> dict[str, Any]:
    reply = post(gateway, "/v1/chat/completions", {"model": "construction", "messages": MESSAGES})
    return dict(reply.json())


def conversation(gateway: Any, identity: str, who: str = "ann") -> httpx.Response:
    return httpx.get(f"{gateway.url}/v1/conversations/{identity}", headers=gateway.headers(who))


def drafts(gateway: Any, **changes: Any) -> httpx.Response:
    body = {"model": "construction", "messages": MESSAGES, "stream": True} | changes
    return post(gateway, "/v1/drafts", body)


def chunks(reply: httpx.Response) -> list[dict[str, Any]]:
    events = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_the_session_says_who_asks_and_what_can_be_asked(gateway: Any) -> None:
    found = httpx.get(f"{gateway.url}/v1/session", headers=gateway.headers("rita")).json()
    assert (found["name"], found["role"], found["domain"]) == ("rita", "review", "construction")
    assert found["title"] and all(isinstance(example, str) for example in found["examples"])


def test_a_conversation_holds_its_answers_with_what_was_said(gateway: Any, plain: Any) -> None:
    first = ask(gateway)
    said = {
        "answer_id": first["id"],
        "kind": "correction",
        "text": "Thus.",
        "other_words": "Why?",
        "idempotency_key": "c1",
    }
    stored = post(gateway, "/v1/feedback", said)
    assert stored.status_code == 201
    [answer] = conversation(gateway, first["conversation_id"]).json()["answers"]
    assert (answer["id"], answer["question"], answer["version"]) == (first["id"], "How?", "base")
    assert answer["text"] == first["choices"][0]["message"]["content"] and answer["draft_id"] is None
    told = {
        "id": stored.json()["id"],
        "kind": "correction",
        "thumb": None,
        "rating": None,
        "text": "Thus.",
        "other_words": "Why?",
    }
    assert answer["feedback"] == [told]
    httpx.delete(f"{gateway.url}/v1/feedback/{told['id']}", headers=gateway.headers())
    [answer] = conversation(gateway, first["conversation_id"]).json()["answers"]
    assert answer["feedback"] == []


@pytest.mark.parametrize("who", ["bob", "adam"])
def test_a_conversation_is_its_own_identitys(gateway: Any, plain: Any, who: str) -> None:
    assert conversation(gateway, ask(gateway)["conversation_id"], who).status_code == 404
    assert conversation(gateway, "conv_nothing").status_code == 404


def test_two_drafts_come_as_two_choices_that_nothing_tells_apart_before_one_is_chosen(gateway: Any, plain: Any) -> None:
    identity = ask(gateway)["conversation_id"]
    reply = drafts(gateway, conversation_id=identity)
    told = chunks(reply)
    assert {choice["index"] for chunk in told for choice in chunk["choices"]} == {0, 1}
    assert all("version" not in chunk for chunk in told) and "x-flywheel-version" not in reply.headers
    _, *pair = conversation(gateway, identity).json()["answers"]
    assert {answer["position"] for answer in pair} == {0, 1} and len({answer["draft_id"] for answer in pair}) == 1
    assert [answer["version"] for answer in pair] == [None, None]
    store = gateway.service.storage.store
    found = [get_answer(store, answer["id"]) for answer in pair]
    assert {answer.who for answer in found if answer} == {"champion", "sample"}
    asked = [request for request in plain.seen()["asked"] if request["temperature"]]
    assert [request["temperature"] for request in asked] == [0.9]
    said = {"answer_id": pair[0]["id"], "kind": "choice", "idempotency_key": f"choice-{pair[0]['id']}"}
    assert post(gateway, "/v1/feedback", said).status_code == 201
    _, *pair = conversation(gateway, identity).json()["answers"]
    assert [answer["version"] for answer in pair] == ["base", "base"]


def test_the_order_of_drafts_is_random(gateway: Any, plain: Any) -> None:
    """Twelve pairs come in one order by chance once in 2048."""
    identity = ask(gateway)["conversation_id"]
    for _ in range(12):
        drafts(gateway, conversation_id=identity)
    rows = answers_of(gateway.service.storage.store, identity)
    assert {row.who for row in rows if row.position == 0} == {"champion", "sample"}


@pytest.mark.parametrize(
    ("changes", "param"), [({}, "conversation_id"), ({"conversation_id": "conv_x", "stream": False}, "stream")]
)
def test_drafts_need_a_conversation_and_are_streamed(gateway: Any, changes: dict[str, Any], param: str) -> None:
    reply = drafts(gateway, **changes)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)


def test_drafts_in_a_conversation_of_nobodys_are_refused_and_nothing_is_asked(gateway: Any, plain: Any) -> None:
    before = len(plain.seen()["asked"])
    assert drafts(gateway, conversation_id="conv_nothing").status_code == 404
    assert len(plain.seen()["asked"]) == before
