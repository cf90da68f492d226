"""Keys, cookies and logins."""

from __future__ import annotations

import stat
from typing import Any

import httpx
import pytest

from serving import auth
from serving.auth import CACHE_SECONDS, COOKIE, cookie_secret
from tasks.core import layout
from tasks.store.identities import create_identity, disable_identity

WRONG = [None, "", "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer fw_00000000_" + "x" * 43, "Bearer " + "x" * 5000]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("GET", "/v1/answers/x"), ("POST", "/v1/feedback")]
)
def test_without_a_known_key_everything_of_the_api_is_401(gateway: Any, method: str, path: str) -> None:
    for header in WRONG:
        headers = {} if header is None else {"authorization": header}
        reply = httpx.request(method, gateway.url + path, headers=headers, json={} if method == "POST" else None)
        assert reply.status_code == 401, (path, reply.text)
        assert reply.headers["www-authenticate"] == "Bearer"
        assert reply.json()["error"]["type"] == "authentication_error"


def test_a_disabled_key_ends_within_seconds(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.auth.CACHE_SECONDS", 0.0)
    assert CACHE_SECONDS <= 5
    store = gateway.service.storage.store
    _, key = create_identity(store, "leaver", "chat")
    ask = {"authorization": f"Bearer {key}"}
    assert httpx.get(f"{gateway.url}/v1/models", headers=ask).status_code == 200
    disable_identity(store, "leaver")
    assert httpx.get(f"{gateway.url}/v1/models", headers=ask).status_code == 401


def test_a_login_sets_a_cookie_that_serves_the_api_too(gateway: Any) -> None:
    with httpx.Client(base_url=gateway.url) as browser:
        reply = browser.get("/login", params={"key": gateway.keys["ann"]})
        assert (reply.status_code, reply.headers["location"]) == (303, "/")
        cookie = reply.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=lax" in cookie
        assert gateway.keys["ann"] not in reply.headers["set-cookie"]
        assert browser.get("/v1/models").status_code == 200
        assert browser.post("/logout").status_code == 303
        assert browser.get("/v1/models").status_code == 401


def test_the_form_takes_the_key_in_its_body(gateway: Any) -> None:
    reply = httpx.post(f"{gateway.url}/login", data={"key": gateway.keys["ann"]})
    assert reply.status_code == 303 and COOKIE in reply.headers["set-cookie"]


def test_a_forged_cookie_is_nobody(gateway: Any) -> None:
    identity = gateway.keys["ann"].split("_")[1]
    for forged in (identity, f'"{identity}".x.y', "x" * 4000):
        assert httpx.get(f"{gateway.url}/v1/models", cookies={COOKIE: forged}).status_code == 401


def test_another_sites_page_may_not_use_the_cookie(gateway: Any) -> None:
    with httpx.Client(base_url=gateway.url) as browser:
        browser.get("/login", params={"key": gateway.keys["ann"]})
        body = {"answer_id": "x", "kind": "thumb", "thumb": 1, "idempotency_key": "k"}
        reply = browser.post("/v1/feedback", json=body, headers={"origin": "https://evil.example"})
        assert (reply.status_code, reply.json()["error"]["type"]) == (403, "permission_error")
        assert browser.post("/v1/feedback", json=body, headers={"origin": gateway.url}).status_code == 404


def test_the_cookies_secret_is_made_once_and_its_owners_only(tmp_path: Any) -> None:
    first = cookie_secret(tmp_path)
    path = tmp_path / layout.SECRETS / "cookie"
    assert first == cookie_secret(tmp_path) and len(first) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("")
    assert len(cookie_secret(tmp_path)) >= 32
    assert [found.name for found in path.parent.iterdir()] == ["cookie"]


def test_gateways_that_start_together_sign_with_one_secret(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second starts, and ends, while the first writes its own."""
    write, second = auth.write_bytes, list[str]()

    def write_behind(path: Any, content: bytes, mode: int) -> None:
        monkeypatch.setattr(auth, "write_bytes", write)
        second.append(cookie_secret(tmp_path))
        write(path, content, mode)

    monkeypatch.setattr(auth, "write_bytes", write_behind)
    assert [cookie_secret(tmp_path)] == second
