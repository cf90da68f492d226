from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from serving.page.guard import Guard, _known


def gradio() -> Starlette:
    async def anything(request: Request) -> PlainTextResponse:
        return PlainTextResponse("gradio", headers={"x-frame-options": "ALLOWALL"})

    return Starlette(routes=[Route("/{path:path}", anything, methods=["GET", "POST"])])


async def by_cookie(request: Request) -> Any:
    await asyncio.sleep(0)
    return request.cookies.get("who")


@pytest.fixture
def client() -> TestClient:
    return TestClient(Guard(gradio(), by_cookie), follow_redirects=False)


def test_a_stranger_is_sent_to_the_sign_in_and_may_call_nothing(client: TestClient) -> None:
    assert (client.get("/").status_code, client.get("/").headers["location"]) == (303, "/login")
    for path in ("/config", "/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/heartbeat/x"):
        assert client.get(path).status_code == 401
    assert client.get("/theme.css").text == "gradio"


def test_whoever_is_signed_in_reaches_the_page(client: TestClient) -> None:
    client.cookies.set("who", "anna")
    assert client.get("/").text == "gradio"
    assert client.post("/gradio_api/queue/join", headers={"origin": "http://testserver"}).text == "gradio"


@pytest.mark.parametrize("path", ["/gradio_api/upload", "/gradio_api/proxy=http://x", "/gradio_api/file=/etc/passwd"])
def test_what_the_page_does_not_need_is_not_there(client: TestClient, path: str) -> None:
    client.cookies.set("who", "anna")
    reply = client.get(path)
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/assets/../x", "/assets/%2e%2e/x", "/gradio_api/run/predict", "/v1/nothing", "//"])
def test_paths_that_climb_or_are_unknown_are_not_known(path: str) -> None:
    assert _known(path) is False


def test_another_sites_page_may_not_use_the_cookie(client: TestClient) -> None:
    client.cookies.set("who", "anna")
    reply = client.post("/gradio_api/queue/join", headers={"origin": "http://evil.example"})
    assert reply.status_code == 403 and reply.json()["error"]["code"] == "other_site"


def test_every_reply_forbids_calls_to_the_outside_and_framing(client: TestClient) -> None:
    for path in ("/", "/theme.css", "/nothing"):
        headers = client.get(path).headers
        assert "connect-src 'self'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
