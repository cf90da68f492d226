"""Health, metrics, and a log that holds no text and no key."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest

from serving.errors import without_paths
from serving.monitoring import JsonLines
from tasks.store.nights import close_night, open_night
from tests.serving.gateways import DOMAIN

CHAT = "/v1/chat/completions"
SECRET = "a word that nobody else would say"  # noqa: S105


def ask(gateway: Any, **headers: str) -> httpx.Response:
    body = {"model": DOMAIN, "messages": [{"role": "user", "content": SECRET}]}
    return httpx.post(gateway.url + CHAT, headers=gateway.headers() | headers, json=body)


def metric(gateway: Any, start: str) -> float:
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))


def test_a_request_is_one_line_that_says_all_but_the_text(
    gateway: Any, plain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="serving"):
        reply = ask(gateway, **{"x-request-id": "mine-1"})
        httpx.get(f"{gateway.url}/login", params={"key": gateway.keys["ann"]})
    assert reply.headers["x-request-id"] == "mine-1"
    lines = [JsonLines().format(record) for record in caplog.records if record.name == "serving"]
    line = next(found for found in map(json.loads, lines) if found.get("request_id") == "mine-1")
    assert (line["event"], line["path"], line["status"], line["version"]) == ("request", CHAT, 200, "base")
    assert line["identity"] == gateway.keys["ann"].split("_")[1] and line["answer"] == reply.json()["id"]
    together = "\n".join(lines)
    assert SECRET not in together and gateway.keys["ann"] not in together


def test_a_request_id_that_is_none_of_ours_is_replaced(gateway: Any) -> None:
    assert len(ask(gateway, **{"x-request-id": "a b{}"}).headers["x-request-id"]) == 32


def test_what_is_logged_of_an_exception_is_its_kind_and_place_only() -> None:
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        record = logging.LogRecord("serving", 40, "x", 1, "failed", (), (ValueError, error, error.__traceback__))
    text = JsonLines().format(record)
    assert SECRET not in text and json.loads(text)["error"] == "ValueError"


def test_the_metrics_count_requests_answers_tokens_and_latency(gateway: Any, plain: Any) -> None:
    names = [
        'flywheel_requests_total{method="POST",route="/v1/chat/completions",status="200"}',
        'flywheel_answers_total{finish_reason="stop"}',
        'flywheel_tokens_total{kind="completion"}',
        "flywheel_first_token_seconds_count",
        "flywheel_answer_seconds_count",
    ]
    before = [metric(gateway, name) for name in names]
    ask(gateway)
    assert [metric(gateway, name) - was for name, was in zip(names, before, strict=True)] == [1, 1, 4, 1, 1]
    assert metric(gateway, 'flywheel_served_version_info{digest="",domain="construction",version="base"}') == 1
    assert metric(gateway, "flywheel_streams_in_flight") == 0
    assert metric(gateway, "flywheel_engine_up") == 1


def test_the_last_finished_night_is_read_from_the_store(gateway: Any) -> None:
    store = gateway.service.storage.store
    assert metric(gateway, "flywheel_last_night_timestamp_seconds") == 0
    night = open_night(store, DOMAIN, "run")
    assert metric(gateway, "flywheel_last_night_timestamp_seconds") == 0
    closed = close_night(store, night.number, "skip", "too little")
    assert closed.closed_at is not None
    assert metric(gateway, "flywheel_last_night_timestamp_seconds") == pytest.approx(closed.closed_at.timestamp())
    close_night(store, open_night(store, DOMAIN, "run").number, "failed", "sft ran out of memory")
    assert metric(gateway, "flywheel_last_night_timestamp_seconds") == pytest.approx(closed.closed_at.timestamp())


def test_reasons_for_people_outside_hold_no_folders() -> None:
    assert without_paths("/srv/a b/flywheel/.flywheel/weights/ab12 does not match").endswith("ab12 does not match")
    assert "/srv" not in without_paths("no such file: /srv/x/y.json")
    assert without_paths("version 3/4 and http://x") == "version 3/4 and http://x"
