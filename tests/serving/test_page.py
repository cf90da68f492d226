"""The page's addresses: who gets what, and what its files may make a browser do."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.page.pages import FILES, MAX_CHARACTERS, STATIC, choose_language, domain_examples, table
from tasks.core.domain import load_domain

LANGUAGES, TEXTS = table()["languages"], table()["texts"]
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


def placeholders(words: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name}


def test_no_text_lacks_a_language_or_a_value_and_no_chinese_text_was_left_in_english() -> None:
    for key, words in TEXTS.items():
        assert set(words) == set(LANGUAGES) and all(value.strip() for value in words.values()), key
        assert len({frozenset(placeholders(value)) for value in words.values()}) == 1, key
        assert re.search(r"[\u4e00-\u9fff]", words["zh"]), key


def test_every_text_is_used_and_every_key_that_is_used_exists() -> None:
    sources = "".join(path.read_text() for path in (*STATIC.glob("*.js"), STATIC.parent / "pages.py"))
    assert [key for key in TEXTS if not re.search(rf'["\']{key}["\']', sources)] == []
    literal = re.findall(r'(?:text|named|hidden)\(["\'](\w+)["\']', sources)
    assert [key for key in literal if key not in TEXTS] == []


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("sv-SE,sv;q=0.9,zh-TW;q=0.5,en;q=0.3", "zh"),
        ("sv-SE,sv;q=0.9", "en"),
        ("ZH-hans", "zh"),
        ("*", "en"),
        (",;=\x00," * 99, "en"),
    ],
)
def test_the_browser_chooses_the_language(header: str, language: str) -> None:
    assert choose_language(header) == language


def test_a_domain_that_is_not_here_gives_its_name_and_no_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert domain_examples("law") == ("law", [])


def test_a_source_that_cannot_be_read_gives_the_title_and_no_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.flows.toy import make_toy

    monkeypatch.chdir(make_toy(tmp_path))  # its questions are a bare text file
    assert domain_examples("toy") == (load_domain("toy").title, [])


def test_the_default_domains_examples_are_short_different_and_never_evaluated_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.core.records import make_item
    from tasks.corpus.ingest.human import read_human

    monkeypatch.chdir(root)
    title, examples = domain_examples("construction")
    domain = load_domain("construction")
    assert title == domain.title and len(examples) == len(set(examples)) == 4
    assert all(len(example) <= MAX_CHARACTERS for example in examples)
    frozen = set(json.loads(domain.frozen.read_text())["domain"])
    [source] = domain.human
    known, _, _ = read_human(source, domain.paths(source), domain.language)
    items = [make_item(set="domain", prompt=e.prompt, reference=e.output) for e in known]
    assert not set(examples) & {item.prompt for item in items if item.id in frozen}
