"""Chromium for the chat page's tests: opened once, a fresh person and window for each visit."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tasks.store.schema import Identity
from tests.e2e.page_gateway import Gateway

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = Path(__file__).resolve().parents[2] / "docs/pictures"
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
Visit = Callable[..., tuple[Page, Identity]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        reason = f"{CHROMIUM} is missing: apt-get install chromium fonts-noto-cjk"
        if os.environ.get("CI") or os.environ.get("FLYWHEEL_REQUIRE_BROWSER"):
            pytest.fail(reason)
        pytest.skip(f"THE CHAT PAGE IS NOT TESTED: {reason}")
    with sync_playwright() as play:
        expect.set_options(timeout=60_000)  # five seconds are too few beside other work
        launched = play.chromium.launch(executable_path=str(CHROMIUM), args=[*QUIET, "--no-first-run"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open the page as a new person; at the end no request may have left the machine, and no script failed."""
    contexts, requests, failures = [], [], []

    def open_page(gateway: Gateway, locale: str = "en-US", width: int = 1280) -> tuple[Page, Identity]:
        person, key = gateway.new_person(f"person {os.urandom(4).hex()}")
        context = browser.new_context(locale=locale, viewport={"width": width, "height": 800})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(gateway.address)
        page.fill("#key", key)
        page.click("button[type=submit]")
        page.wait_for_selector(".fw-welcome h2")
        expect(page.locator("html")).to_have_attribute("lang", locale[:2])
        return page, person

    yield open_page
    for context in contexts:
        context.close()
    assert [
        url for url in requests if not re.match(r"(http://127\.0\.0\.1:|data:|blob:http://127\.0\.0\.1:)", url)
    ] == []
    assert failures == []


def ask(page: Page, question: str) -> None:
    box = page.locator("#fw-question textarea")
    box.fill(question)
    expect(box).to_have_value(question)
    box.press("Enter")
    page.wait_for_selector(".fw-turn:last-child .fw-judge")
    page.wait_for_selector("#fw-send")


def saved(page: Page) -> None:
    expect(page.locator("p.fw-hidden[role=status]")).to_have_text(re.compile("Saved|已保存"))


def picture(page: Page, name: str) -> None:
    if os.environ.get("FLYWHEEL_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        page.wait_for_timeout(500)
        page.screenshot(path=PICTURES / name)
