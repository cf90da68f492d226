"""The page's addresses: who gets what, and what its files may make a browser do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from serving.page.pages import FILES
from serving.page.texts import STATIC, table

OUTSIDE_OR_MARKUP = r"https?://|url\(|@import|innerHTML|insertAdjacentHTML|\beval\b|new Function"


class Read(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def browser(gateway: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url) as client:
        client.get("/login", params={"key": gateway.keys["ann"]})
        yield client


def test_a_stranger_is_sent_to_the_sign_in_and_gets_no_page(gateway: Any) -> None:
    reply = httpx.get(f"{gateway.url}/")
    assert (reply.status_code, reply.headers["location"], reply.text) == (303, "/login", "")


def test_whoever_is_signed_in_gets_the_page_and_all_its_files(browser: httpx.Client) -> None:
    page = browser.get("/")
    assert page.status_code == 200 and 'id="fw-question"' in page.text
    for name, kind in FILES.items():
        reply = browser.get(f"/page/{name}")
        assert reply.status_code == 200 and reply.headers["content-type"].startswith(kind), name
    assert {path.name for path in STATIC.iterdir()} == {*FILES, "index.html"}


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2fpages.py", "%2e%2e/texts.py"])
def test_no_other_file_is_served(browser: httpx.Client, name: str) -> None:
    assert browser.get(f"/page/{name}").status_code == 404


def test_every_reply_forbids_what_is_not_the_pages_own(gateway: Any, browser: httpx.Client) -> None:
    for reply in (browser.get("/"), browser.get("/page/chat.js"), httpx.get(f"{gateway.url}/login")):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"


def test_no_file_of_the_page_needs_anything_from_outside_or_writes_markup() -> None:
    for path in STATIC.iterdir():
        source = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(OUTSIDE_OR_MARKUP, source), path
    page = Read((STATIC / "index.html").read_text(encoding="utf-8"))
    assert all(set(script) == {"type", "src"} for script in page.of("script")) and page.of("style") == []
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)


@pytest.mark.parametrize("language", table()["languages"])
def test_the_key_goes_to_login_in_the_body_and_the_field_has_its_label(gateway: Any, language: str) -> None:
    source = httpx.get(f"{gateway.url}/login", headers={"accept-language": language}).text
    page = Read(source)
    assert page.of("html") == [{"lang": language}] and page.of("script") == []
    assert [(form["action"], form["method"]) for form in page.of("form")] == [("/login", "post")]
    [field] = page.of("input")
    assert (field["name"], field["type"]) == ("key", "password")
    assert [label["for"] for label in page.of("label")] == [field["id"]]


def test_a_wrong_key_is_told_on_the_form(gateway: Any) -> None:
    reply = httpx.post(f"{gateway.url}/login", data={"key": "<script>fw_"})
    assert reply.status_code == 401 and "<script>" not in reply.text and "set-cookie" not in reply.headers
    assert any(attributes.get("role") == "alert" for attributes in Read(reply.text).of("p"))
