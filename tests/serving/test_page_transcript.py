from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from serving.page.conversation import Answer, Session, Turn
from serving.page.transcript import render

TAGS = {"div", "p", "h2", "h3", "section", "article", "footer", "span", "button", "svg", "path"}
TAGS |= {"details", "summary", "strong"}


class Read(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.words += data


def answered(**said: object) -> Session:
    answer = Answer(id="a1", text="It is ten weeks.", version="7", finish="stop", **said)  # type: ignore[arg-type]
    return Session(turns=[Turn("How long?", answer=answer)])


@given(st.text(max_size=200), st.text(max_size=200))
def test_whatever_is_said_stays_text(question: str, said: str) -> None:
    turn = Turn(question, answer=Answer(id=said, text=said, version=said, correction=said, comment=said))
    read = Read(render(Session(turns=[turn], status=said), [said]))
    assert read.tags <= TAGS
    assert not any(name.startswith("on") or name in ("href", "src", "style") for name, _ in read.attributes)


def test_text_is_shown_to_the_character() -> None:
    words = "a < b && <b>no</b>\n  1. ![x](http://example.org/x.png) `{{value}}` ${value}"
    read = Read(render(Session(turns=[Turn(words, answer=Answer(id="a", text=words, version="7"))]), []))
    assert read.words.count(words) == 2


def test_an_open_choice_shows_neither_version_nor_ids_nor_buttons_that_judge() -> None:
    session = answered()
    session.turns[0].drafts = [
        Answer(id="answer-champion", text="one", version="7", position=0),
        Answer(id="answer-challenger", text="two", version="8", position=1),
    ]
    shown = render(session, [])
    assert not re.search(r"Version|answer-ch|data-event=.judge", shown)
    session.turns[0].chosen, session.turns[0].answer = 1, session.turns[0].drafts[1]
    shown = render(session, [])
    assert "Version 8 · You chose draft B" in shown and "The other draft: A · Version 7" in shown


def test_what_was_said_can_be_seen_and_heard() -> None:
    shown = render(answered(thumb=-1, rating=2), [])
    assert shown.count("fw-lit") == 2
    assert re.search(r'data-value="-1" aria-pressed="true" aria-label="Bad answer"', shown)
    assert re.search(r'data-value="2" aria-pressed="true" aria-label="2 of 5 stars"', shown)


def test_a_correction_takes_the_answers_place_and_the_answer_stays_readable() -> None:
    shown = render(answered(correction="It is twenty weeks."), [])
    assert re.search(r'fw-final">It is twenty weeks\.<', shown) and "It is ten weeks." in shown
    assert "Second draft" not in shown


def test_only_the_last_answer_offers_a_second_draft_and_none_while_writing() -> None:
    session = answered()
    session.turns *= 2
    assert render(session, []).count('data-what="drafts"') == 1
    session.busy = True
    assert 'data-what="drafts"' not in render(session, []) and 'aria-busy="true"' in render(session, [])


def test_an_unstored_answer_cannot_be_judged() -> None:
    stopped = Session(turns=[Turn("q", answer=Answer(text="half an", finish="cancelled"))])
    assert "Stopped by you" in render(stopped, []) and "data-event" not in render(stopped, [])


def test_an_error_is_told_in_the_chosen_language_and_can_be_tried_again() -> None:
    shown = render(Session(language="zh", turns=[Turn("q", error="not_accepted", reason="<b>")]), [])
    assert "未被接受：&lt;b&gt;" in shown and 'role="alert"' in shown and 'data-what="retry"' in shown


def test_the_welcome_offers_the_examples() -> None:
    assert render(Session(), ["What is <this>?"]).count('data-value="What is &lt;this&gt;?"') == 1
