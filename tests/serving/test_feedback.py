"""Feedback over HTTP: once for each key, only on one's own answers, durable when acknowledged."""

from __future__ import annotations

import sqlite3
import uuid
from typing import Any

import httpx
import pytest

from tasks.core import layout

QUESTION = {"model": "construction", "messages": [{"role": "user", "content": "How?"}]}


@pytest.fixture
def answer(gateway: Any, plain: Any) -> str:
    reply = httpx.post(f"{gateway.url}/v1/chat/completions", headers=gateway.headers(), json=QUESTION)
    return str(reply.json()["id"])


def post(gateway: Any, body: dict[str, Any], who: str = "ann", **headers: str) -> httpx.Response:
    return httpx.post(f"{gateway.url}/v1/feedback", headers=gateway.headers(who) | headers, json=body)


def rows_of(gateway: Any, answer: str) -> list[Any]:
    with sqlite3.connect(gateway.home / layout.STORE / "flywheel.db") as connection:
        found = connection.execute(
            "SELECT kind, thumb, rating, text, other_words FROM feedback WHERE answer_id = ?", (answer,)
        )
        return found.fetchall()


@pytest.mark.parametrize(
    ("fields", "row"),
    [
        ({"kind": "thumb", "thumb": -1}, ("thumb", -1, None, None, None)),
        ({"kind": "rating", "rating": 5}, ("rating", None, 5, None, None)),
        ({"kind": "correction", "text": "Nej, 15 m²."}, ("correction", None, None, "Nej, 15 m².", None)),
        (
            {"kind": "correction", "text": "Nej.", "other_words": "Får jag?"},
            ("correction", None, None, "Nej.", "Får jag?"),
        ),
        ({"kind": "comment", "text": "很好 <b>"}, ("comment", None, None, "很好 <b>", None)),
    ],
)
def test_each_kind_is_stored_once_for_its_key(
    gateway: Any, answer: str, fields: dict[str, Any], row: tuple[Any, ...]
) -> None:
    body = {"answer_id": answer, "idempotency_key": uuid.uuid4().hex, **fields}
    nulls = dict.fromkeys(("thumb", "rating", "text", "other_words"))
    first, again = post(gateway, body), post(gateway, nulls | body, **{"idempotency-key": ""})
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() and first.json()["id"].startswith("fb_")
    other = post(
        gateway,
        body | {"kind": "comment", "thumb": None, "rating": None, "text": "Something else.", "other_words": None},
    )
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")
    assert rows_of(gateway, answer) == [row]


def test_the_key_may_come_as_a_header(gateway: Any, answer: str) -> None:
    body = {"answer_id": answer, "kind": "thumb", "thumb": 1}
    key = uuid.uuid4().hex
    assert post(gateway, body, **{"idempotency-key": key}).json()["idempotency_key"] == key
    assert post(gateway, body).status_code == 400
    assert post(gateway, body | {"idempotency_key": "other"}, **{"idempotency-key": key}).status_code == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"kind": "thumb"}, "thumb"),
        ({"kind": "thumb", "thumb": True}, "thumb"),
        ({"kind": "thumb", "thumb": 1, "rating": 5}, "rating"),
        ({"kind": "rating", "rating": 4.5}, "rating"),
        ({"kind": "correction", "text": "a\x00b"}, "text"),
        ({"kind": "correction", "text": "Yes<|im_end|>"}, "text"),
        ({"kind": "correction", "text": "x" * 20_001}, "text"),
        ({"kind": "comment", "text": "So.", "other_words": "How?"}, "other_words"),
        ({"kind": "correction", "text": "So.", "other_words": "How?<|im_end|>"}, "other_words"),
        ({"kind": "correction", "text": "So.", "other_words": "x" * 20_001}, "other_words"),
        ({"kind": "thumb", "thumb": 1, "identity_id": "bob"}, "identity_id"),
    ],
)
def test_feedback_that_is_none_of_its_kind_names_the_field(
    gateway: Any, answer: str, fields: dict[str, Any], param: str
) -> None:
    reply = post(gateway, {"answer_id": answer, "idempotency_key": uuid.uuid4().hex, **fields})
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert rows_of(gateway, answer) == []


def test_an_answer_is_shown_to_its_owner_and_to_reviewers_only(gateway: Any, answer: str) -> None:
    status = {
        who: httpx.get(f"{gateway.url}/v1/answers/{answer}", headers=gateway.headers(who)).status_code
        for who in ("ann", "bob", "rita", "adam")
    }
    assert status == {"ann": 200, "bob": 404, "rita": 200, "adam": 200}
