"""The chat page in a real browser: every kind of feedback is given by hand and then read from the database.

Needs Debian's Chromium. Where it is absent the tests are skipped, or fail if CI or FLYWHEEL_REQUIRE_BROWSER is set.
FLYWHEEL_PICTURES=1 writes the documentation's pictures too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from serving.errors import ServiceError
from tasks.core.records import make_passage
from tasks.knowledge.search import Knowledge
from tasks.text.passages import answering_words, ask_from
from tests.e2e.page_browser import Visit, ask, browser, picture, saved, visit
from tests.e2e.page_gateway import Gateway, running_gateway
from tests.postgres import PostgresServer, postgres_server
from tests.serving.gateways import make_index, wait_for

__all__ = ["browser", "postgres_server", "visit"]
QUESTION = "Do I need a permit for an attefallshus?"
ANSWER = (
    "An attefallshus of up to 30 square metres needs no building permit (bygglov).\n\n"
    "1. Send a notice (anmälan) to the building committee.\n"
    "2. Wait for the start decision before you begin.\n"
    "3. Keep 4.5 metres from the plot boundary, unless your neighbour agrees."
)
SAMPLED = "No. It is small, so you may simply build it, and nobody has to be asked or told about it beforehand."
ZH_QUESTION = "在瑞典扩建房屋需要许可吗？"
ZH_ANSWER = "一般需要向市政建设委员会申请建筑许可（bygglov）。简单的案件审理需要四到六周。"


@pytest.fixture(scope="module")
def gateway(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory, base_model: Path
) -> Iterator[Gateway]:
    """On PostgreSQL."""
    url = postgres_server.new_database()
    with running_gateway(tmp_path_factory.mktemp("page") / "home", base_model, url) as running:
        running.engine.behave(answers={QUESTION: [ANSWER, SAMPLED], ZH_QUESTION: [ZH_ANSWER]})
        yield running


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, base_model: Path) -> Iterator[Gateway]:
    """A second gateway, on SQLite, whose drafts come from the challenger."""
    tmp = tmp_path_factory.mktemp("page")
    with running_gateway(tmp / "home", base_model, f"sqlite:///{tmp}/store.db", "challenger") as running:
        yield running


def test_every_kind_of_feedback_reaches_the_database(gateway: Gateway, visit: Visit) -> None:
    page, person = visit(gateway)
    ask(page, QUESTION)
    expect(page.locator(".fw-final")).to_have_text(ANSWER)
    expect(page.locator(".fw-note")).to_have_text("Version 7")
    page.get_by_label("Good answer").click()
    expect(page.get_by_label("Good answer")).to_have_attribute("aria-pressed", "true")
    page.get_by_label("4 of 5 stars").click()
    expect(page.locator(".fw-lit")).to_have_count(4)
    page.get_by_role("button", name="Comment").click()
    expect(page.locator("#fw-other")).to_be_hidden()
    page.fill("#fw-words textarea", "The paragraph of the law is missing.")
    page.get_by_role("button", name="Save comment").click()
    expect(page.locator(".fw-comment")).to_contain_text("The paragraph of the law is missing.")
    page.get_by_role("button", name="Correct").click()
    page.get_by_role("button", name="Save correction").wait_for()
    picture(page, "chat_english.png")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Second draft").click()
    page.get_by_role("button", name="A is better").wait_for()
    assert "Version" not in page.locator(".fw-log").inner_text()
    picture(page, "chat_drafts.png")
    page.get_by_role("button", name="B is better").click()
    expect(page.locator(".fw-note")).to_have_text("Version 7 · You chose draft B")
    kept = page.locator(".fw-final").inner_text()
    page.get_by_role("button", name="Correct").click()
    expect(page.locator("#fw-words textarea")).to_have_value(kept)
    expect(page.locator("#fw-words textarea")).to_be_focused()
    page.fill("#fw-words textarea", f"{ANSWER}\n4. Build within five years.")
    page.keyboard.press("Tab")
    other_words = page.get_by_label("The same question in other words (optional)")
    expect(other_words).to_be_focused()
    expect(other_words).to_have_accessible_description(re.compile("never to train"))
    page.keyboard.type("May I build one without asking?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".fw-tag")).to_have_text("Your correction")
    saved(page)
    page.reload()
    page.get_by_role("button", name="Correct").click()
    expect(other_words).to_have_value("May I build one without asking?")

    first, *drafts = gateway.answers_to(person)
    by_position = {draft.position: draft for draft in drafts}
    assert first.draft_id is None and {draft.who for draft in drafts} == {"champion", "sample"}
    assert len({draft.draft_id for draft in drafts}) == 1 and set(by_position) == {0, 1}
    values = ("answer_id", "thumb", "rating", "text", "other_words")
    said = {row.kind: tuple(getattr(row, name) for name in values) for row in gateway.said_by(person)}
    assert said == {
        "thumb": (first.id, 1, None, None, None),
        "rating": (first.id, None, 4, None, None),
        "comment": (first.id, None, None, "The paragraph of the law is missing.", None),
        "choice": (by_position[1].id, None, None, None, None),
        "correction": (
            by_position[1].id,
            None,
            None,
            f"{ANSWER}\n4. Build within five years.",
            "May I build one without asking?",
        ),
    }
    assert by_position[1].text == kept


def test_a_chinese_browser_gets_a_chinese_page_and_its_correction_is_stored(gateway: Gateway, visit: Visit) -> None:
    page, person = visit(gateway, locale="zh-CN")
    ask(page, ZH_QUESTION)
    page.get_by_label("回答得不好").click()
    saved(page)
    page.get_by_label("2 星").click()
    page.get_by_role("button", name="纠正").click()
    page.fill("#fw-words textarea", "需要。请向市政建设委员会申请建筑许可，审理时间为十周。")
    page.get_by_role("button", name="保存纠正").click()
    expect(page.locator(".fw-tag")).to_have_text("您的纠正")
    picture(page, "chat_chinese.png")
    corrections = [row.text for row in gateway.said_by(person) if row.kind == "correction"]
    assert corrections == ["需要。请向市政建设委员会申请建筑许可，审理时间为十周。"]
    assert sorted(row.kind for row in gateway.said_by(person)) == ["correction", "rating", "thumb"]
    page.get_by_role("radio", name="English").check()
    expect(page.locator(".fw-tag")).to_have_text("Your correction")
    page.reload()
    expect(page.locator("#fw-new")).to_have_text("New conversation")


def test_html_is_shown_as_text_and_not_run(embedded: Gateway, visit: Visit) -> None:
    page, _ = visit(embedded)
    attack = "<img src='http://192.0.2.1/x.png' onerror='window.hacked=1'><script>window.hacked=1</script>"
    answer = f"![x](http://192.0.2.1/y.png) <b>bold</b> ${{window.hacked=1}} {attack}"
    embedded.engine.behave(answers={attack: [answer]})
    ask(page, attack)
    assert page.locator(".fw-question .fw-text").inner_text() == attack
    assert page.locator(".fw-final").inner_text() == answer
    page.get_by_role("button", name="Comment").click()
    page.fill("#fw-words textarea", attack)
    page.get_by_role("button", name="Save comment").click()
    expect(page.locator(".fw-comment .fw-text")).to_have_text(attack)
    assert page.locator(".fw-log img, .fw-log script, .fw-log b").count() == 0
    assert page.evaluate("window.hacked") is None


def test_champion_and_challenger_are_told_apart_only_after_the_choice(embedded: Gateway, visit: Visit) -> None:
    page, person = visit(embedded)
    ask(page, "Who are you?")
    page.get_by_role("button", name="Second draft").click()
    page.get_by_role("button", name="A is better").wait_for()
    drafts = embedded.answers_to(person)[1:]
    assert {draft.version for draft in drafts} == {"7", "8"}
    shown = page.locator(".fw-choice").inner_html()
    assert not any(word in shown for word in ("Version", "champion", "challenger", *(draft.id for draft in drafts)))
    page.get_by_role("button", name="A is better").click()
    chosen = next(draft for draft in drafts if draft.position == 0)
    expect(page.locator(".fw-note")).to_have_text(f"Version {chosen.version} · You chose draft A")
    assert [(row.kind, row.answer_id) for row in embedded.said_by(person)] == [("choice", chosen.id)]


def test_an_expert_corrects_answer_after_answer_without_the_mouse(embedded: Gateway, visit: Visit) -> None:
    page, person = visit(embedded)
    keys = page.keyboard
    expect(page.locator("#fw-question textarea")).to_be_focused()
    for number in range(3):
        keys.type(f"Question {number}")
        keys.press("Enter")
        expect(page.locator(".fw-answer .fw-judge")).to_have_count(number + 1)
        page.wait_for_selector("#fw-send")
        keys.press("Alt+c")
        expect(page.locator("#fw-words textarea")).to_be_focused()
        keys.press("Control+a")
        keys.type(f"Answer {number}")
        keys.press("Control+Enter")
        expect(page.locator(".fw-tag")).to_have_count(number + 1)
        expect(page.locator("#fw-question textarea")).to_be_focused()
    assert [row.text for row in embedded.said_by(person)] == ["Answer 0", "Answer 1", "Answer 2"]
    sent = embedded.engine.seen()["asked"][-1]["messages"]
    assert [message["content"] for message in sent[1:]] == [
        "Question 0", "Answer 0", "Question 1", "Answer 1", "Question 2",
    ]  # fmt: skip
    keys.press("Alt+c")
    expect(page.locator("#fw-words textarea")).to_be_focused()
    keys.press("Escape")
    expect(page.locator("#fw-question textarea")).to_be_focused()


@contextlib.contextmanager
def a_long_answer(gateway: Gateway, page: Page) -> Iterator[None]:
    """An answer that has begun and would take minutes."""
    gateway.engine.behave(answers={"Tell me everything": ["word " * 2000]}, between=0.05)
    try:
        page.fill("#fw-question textarea", "Tell me everything")
        page.keyboard.press("Enter")
        expect(page.locator(".fw-final")).to_contain_text("word word")
        yield
    finally:
        gateway.engine.behave(between=0.0)


@pytest.fixture
def knowing(embedded: Gateway, tmp_path: Path) -> Iterator[Gateway]:
    """The gateway, whose version has an index with a long passage, one that attacks, and a correction."""
    passages = [
        make_passage(kind="document", text="A shed keeps its distance. " * 20 + "The end.", source="law.txt#0-548"),
        make_passage(kind="correction", question="<b>What shed?</b>", text="<img src=x> a shed", source="fb_1"),
    ]
    traffic, before = embedded.service.traffic, embedded.service.traffic.champion
    assert before is not None
    knowledge = Knowledge(make_index(tmp_path / "knowledge", passages), embedded.service.prompts.count)
    traffic.champion = replace(before, knowledge=knowledge)
    [hits] = knowledge.search(["Which shed?"])
    asked = ask_from([hit.passage for hit in hits], "Which shed?", answering_words("en"))
    embedded.engine.behave(answers={asked: ["That one [2]."]})
    yield embedded
    traffic.champion = before


def test_an_answers_sources_are_below_it_the_cited_ones_first_and_open_on_a_click(
    knowing: Gateway, visit: Visit
) -> None:
    page, person = visit(knowing)
    ask(page, "Which shed?")
    [row] = knowing.answers_to(person)
    assert row.passages is not None and len(row.passages) == 2
    second = page.locator(".fw-source").first
    expect(second).to_be_hidden()
    page.get_by_text("Sources (2)").click()
    expect(second).to_contain_text("[2]")
    expect(page.locator(".fw-cited .fw-tag")).to_have_text("Cited")
    page.get_by_label("Good answer").click()
    saved(page)
    expect(page.locator(".fw-source", has_text="A user's correction")).to_contain_text("<b>What shed?</b>")
    expect(page.locator(".fw-source", has_text="law.txt#0-548")).to_be_visible()
    expect(page.get_by_text("The end.")).to_be_hidden()
    page.locator(".fw-source summary").click()
    expect(page.get_by_text("The end.")).to_be_visible()
    assert page.locator(".fw-log img, .fw-log b").count() == 0
    page.reload()
    page.get_by_text("Sources (2)").click()
    expect(page.locator(".fw-source").first).to_contain_text("[2]")
    ask(page, "Zzz")
    expect(page.locator(".fw-note").last).to_contain_text("Nothing was found on this question")


def test_stopping_keeps_what_was_written_and_the_row_says_cancelled(embedded: Gateway, visit: Visit) -> None:
    page, person = visit(embedded)
    with a_long_answer(embedded, page):
        page.click("#fw-stop")
        expect(page.locator(".fw-note")).to_contain_text("Stopped by you")
    page.wait_for_selector("#fw-send")
    wait_for(lambda: embedded.answers_to(person))  # it is stored when the engine has let go
    assert [row.finish_reason for row in embedded.answers_to(person)] == ["cancelled"]
    page.click("#fw-new")
    expect(page.locator(".fw-welcome")).to_be_visible()


def test_a_reloaded_page_shows_the_conversation_as_it_is_stored(embedded: Gateway, visit: Visit) -> None:
    page, _ = visit(embedded)
    ask(page, "First?")
    page.get_by_label("Bad answer").click()
    saved(page)
    page.get_by_role("button", name="Second draft").click()
    page.get_by_role("button", name="A is better").click()
    expect(page.locator(".fw-note")).to_contain_text("You chose draft A")
    ask(page, "Second?")
    page.get_by_role("button", name="Correct").last.click()
    page.fill("#fw-words textarea", "As it should be.")
    page.get_by_role("button", name="Save correction").click()
    expect(page.locator(".fw-tag")).to_have_count(1)
    before = page.locator(".fw-log").inner_text()
    page.reload()
    expect(page.locator(".fw-turn")).to_have_count(2)
    assert page.locator(".fw-log").inner_text() == before
    ask(page, "Third?")
    asked = [message["content"] for message in embedded.engine.seen()["asked"][-1]["messages"]]
    assert asked[-3:] == ["Second?", "As it should be.", "Third?"]
    page.click("#fw-new")
    page.reload()
    expect(page.locator(".fw-welcome")).to_be_visible()


def test_a_correction_that_is_taken_back_is_gone_from_the_page_and_counts_nowhere(
    embedded: Gateway, visit: Visit
) -> None:
    page, person = visit(embedded)
    ask(page, "First?")
    answer = page.locator(".fw-final").inner_text()
    for text in ("Once.", "Twice."):
        page.get_by_role("button", name="Correct").click()
        page.fill("#fw-words textarea", text)
        page.get_by_role("button", name="Save correction").click()
        expect(page.locator(".fw-final")).to_have_text(text)
    page.reload()
    page.get_by_role("button", name="Take back").click()
    expect(page.locator(".fw-final")).to_have_text(answer)
    saved(page)
    page.reload()
    expect(page.locator(".fw-final")).to_have_text(answer)
    expect(page.locator(".fw-tag")).to_have_count(0)
    assert [row.withdrawn_at is not None for row in embedded.said_by(person)] == [True, True]


def test_an_engine_that_is_away_is_told_kindly_and_can_be_asked_again(embedded: Gateway, visit: Visit) -> None:
    page, _ = visit(embedded)
    embedded.engine.behave(down=True)
    try:
        page.fill("#fw-question textarea", "Are you there?")
        page.keyboard.press("Enter")
        expect(page.locator(".fw-error")).to_contain_text("The model is not available at the moment.")
    finally:
        embedded.engine.behave(down=False)
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".fw-final")).to_have_text("base 1 2 3")
    page.fill("#fw-question textarea", "long " * 3990)
    page.keyboard.press("Enter")
    expect(page.locator(".fw-error")).to_contain_text("too long for the model")


def test_feedback_whose_acknowledgement_was_lost_is_counted_once(
    embedded: Gateway, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, person = visit(embedded)
    ask(page, "Is this stored once?")
    real = embedded.service.give_feedback

    async def stored_but_not_told(*arguments: Any) -> Any:
        await real(*arguments)
        raise ServiceError(503, "store_unavailable", "the database is away")

    monkeypatch.setattr(embedded.service, "give_feedback", stored_but_not_told)
    page.get_by_label("5 of 5 stars").click()
    page.get_by_text("could not be saved").wait_for()
    monkeypatch.setattr(embedded.service, "give_feedback", real)
    page.get_by_label("5 of 5 stars").click()
    expect(page.locator(".fw-lit")).to_have_count(5)
    page.get_by_label("5 of 5 stars").click()
    page.get_by_label("1 of 5 stars").click()
    expect(page.locator(".fw-lit")).to_have_count(1)
    assert [row.rating for row in embedded.said_by(person)] == [5, 1]


def test_a_phone_shows_everything_without_scrolling_sideways(embedded: Gateway, visit: Visit) -> None:
    page, _ = visit(embedded, width=390)
    ask(page, "Does it fit?" + " Building permits" * 10)
    page.get_by_role("button", name="Correct").click()
    page.wait_for_selector("#fw-words textarea")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.locator("#fw-save")).to_be_in_viewport()
