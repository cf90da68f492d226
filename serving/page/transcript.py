"""The conversation as HTML. Questions and answers are escaped and shown as plain text, to the character.

Markdown is not rendered on purpose: an image or link in an answer would make the browser call out, and what an expert
corrects must be what was answered.
"""

from __future__ import annotations

from html import escape

from serving.page.conversation import Answer, Session, Turn
from serving.page.texts import text

LETTERS = "AB"
_THUMB = (
    '<svg viewBox="0 0 24 24" width="18" height="18" aria-hidden="true"{turn}><path fill="currentColor" '
    'd="M2 10h4v11H2zM22 11.5c0-1.1-.9-2-2-2h-5.6l.9-4.2v-.3c0-.4-.2-.8-.4-1.1L13.8 3 7.6 9.2'
    "c-.4.4-.6.8-.6 1.3V19c0 1.1.9 2 2 2h7.7"
    'c.8 0 1.5-.5 1.8-1.2l3.3-7c.1-.2.2-.5.2-.8z"/></svg>'
)
THUMBS = {1: _THUMB.format(turn=""), -1: _THUMB.format(turn=' class="fw-down"')}


def render(session: Session, examples: list[str]) -> str:
    """The whole transcript, or the welcome with its examples where nothing was asked yet."""
    language = session.language
    busy = "true" if session.busy else "false"
    body = "".join(_turn(session, number) for number in range(len(session.turns)))
    status = f'<p class="fw-hidden" role="status">{escape(session.status)}</p>'
    label = escape(text("conversation", language))
    if not session.turns:
        body = _welcome(language, examples)
    return (
        f'<div class="fw-log" role="log" aria-label="{label}" aria-busy="{busy}" lang="{language}">{body}</div>{status}'
    )


def _welcome(language: str, examples: list[str]) -> str:
    buttons = "".join(
        f'<button type="button" class="fw-example" data-event="ask" data-what="example" data-value="{escape(example)}">'
        f"{escape(example)}</button>"
        for example in examples
    )
    heading = f'<p class="fw-soft">{escape(text("examples", language))}</p>' if examples else ""
    return (
        f'<div class="fw-welcome"><h2>{escape(text("welcome", language))}</h2>'
        f"<p>{escape(text('welcome_hint', language))}</p>{heading}<div class='fw-examples'>{buttons}</div></div>"
    )


def _turn(session: Session, number: int) -> str:
    turn, language = session.turns[number], session.language
    last = number == len(session.turns) - 1
    writing = session.busy and last
    parts = [
        f'<div class="fw-question"><h3 class="fw-hidden">{escape(text("you", language))}</h3>'
        f'<div class="fw-text">{escape(turn.question)}</div></div>'
    ]
    if turn.choosing:
        parts.append(_drafts(turn, number, language, writing))
    elif turn.answer.text or turn.answer.id or writing:
        parts.append(_answer(turn, number, language, writing, last and not session.busy))
    if turn.error:
        parts.append(_error(turn, number, language, last and not session.busy))
    return f'<section class="fw-turn">{"".join(parts)}</section>'


def _answer(turn: Turn, number: int, language: str, writing: bool, may_draft: bool) -> str:
    answer = turn.answer
    heading = f'<h3 class="fw-hidden">{escape(text("model", language))}</h3>'
    tag = f'<p class="fw-tag">{escape(text("your_correction", language))}</p>' if answer.correction else ""
    body = f'<div class="fw-text fw-final">{escape(answer.final)}{_cursor(language) if writing else ""}</div>'
    extra = _extra(turn, language)
    foot = "" if writing else _foot(turn, number, language, may_draft)
    return (
        f'<article class="fw-answer" data-answer="{escape(answer.id)}" data-turn="{number}">'
        f"{heading}{tag}{body}{extra}{foot}</article>"
    )


def _extra(turn: Turn, language: str) -> str:
    """What belongs to an answer besides its text: the original, the comment, the draft that was not chosen."""
    answer, parts = turn.answer, []
    if answer.correction:
        parts.append(_fold(text("original", language), answer.text))
    if answer.comment:
        parts.append(
            f'<p class="fw-comment"><strong>{escape(text("your_comment", language))}:</strong> '
            f'<span class="fw-text">{escape(answer.comment)}</span></p>'
        )
    if turn.chosen is not None and len(turn.drafts) == 2:
        other = turn.drafts[1 - turn.chosen]
        label = text("other_draft", language, letter=LETTERS[1 - turn.chosen])
        parts.append(_fold(f"{label} · {version_words(other, language)}", other.text))
    return "".join(parts)


def _fold(summary: str, body: str) -> str:
    return f'<details><summary>{escape(summary)}</summary><div class="fw-text">{escape(body)}</div></details>'


def _foot(turn: Turn, number: int, language: str, may_draft: bool) -> str:
    answer = turn.answer
    notes = [version_words(answer, language)] if answer.version else []
    if turn.chosen is not None:
        notes.append(text("chosen", language, letter=LETTERS[turn.chosen]))
    ends = {"length": "cut_off", "cancelled": "stopped", "error": "broken_off"}
    if answer.finish in ends:
        notes.append(text(ends[answer.finish], language))
    note = f'<span class="fw-note">{escape(" · ".join(notes))}</span>'
    judge = _judge(answer, language) if answer.id else ""
    draft = (
        _draft_button(number, language)
        if may_draft and answer.id and turn.chosen is None and not answer.correction
        else ""
    )
    group = f'<div class="fw-judge" role="group" {_label("judge", language)}>{judge}{draft}</div>'
    return f'<footer class="fw-foot">{note}{group if judge else ""}</footer>'


def version_words(answer: Answer, language: str) -> str:
    """Which version wrote an answer."""
    if answer.version == "base":
        return text("version_base", language)
    return text("version", language, version=answer.version)


def _judge(answer: Answer, language: str) -> str:
    thumbs = "".join(
        f'<button type="button" class="fw-icon" data-event="judge" data-what="thumb" data-value="{value}" '
        f'aria-pressed="{"true" if answer.thumb == value else "false"}" {_label(key, language)}>'
        f"{THUMBS[value]}</button>"
        for value, key in ((1, "thumb_up"), (-1, "thumb_down"))
    )
    stars = "".join(
        f'<button type="button" class="fw-star{" fw-lit" if value <= answer.rating else ""}" data-event="judge" '
        f'data-what="rating" data-value="{value}" aria-pressed="{"true" if answer.rating == value else "false"}" '
        f"{_label('star', language, count=value)}>★</button>"
        for value in range(1, 6)
    )
    edits = "".join(
        f'<button type="button" class="fw-small" data-event="edit" data-what="{kind}" '
        f'title="{escape(text(hint, language))}">{escape(text(key, language))}</button>'
        for kind, key, hint in (("correction", "correct", "correct_hint"), ("comment", "comment", "comment_hint"))
    )
    return f'<span class="fw-thumbs">{thumbs}</span><span class="fw-stars">{stars}</span>{edits}'


def _draft_button(number: int, language: str) -> str:
    return (
        f'<button type="button" class="fw-small" data-event="ask" data-what="drafts" data-value="{number}" '
        f'title="{escape(text("second_draft_hint", language))}">{escape(text("second_draft", language))}</button>'
    )


def _drafts(turn: Turn, number: int, language: str, writing: bool) -> str:
    """Two drafts side by side. Nothing in it may tell them apart but the text: no version, no id, no order."""
    columns = []
    for letter, draft in zip(LETTERS, turn.drafts, strict=True):
        button = (
            f'<button type="button" class="fw-choose" data-event="choose" data-turn="{number}" '
            f'data-value="{LETTERS.index(letter)}">{escape(text("choose", language, letter=letter))}</button>'
        )
        columns.append(
            f'<article class="fw-draft"><h3>{escape(text("draft", language, letter=letter))}</h3>'
            f'<div class="fw-text">{escape(draft.text)}'
            f"{_cursor(language) if writing and not draft.finish else ''}</div>"
            f"{'' if writing else button}</article>"
        )
    neither = (
        f'<button type="button" class="fw-small" data-event="choose" data-turn="{number}" data-value="-1">'
        f"{escape(text('neither', language))}</button>"
    )
    return (
        f'<div class="fw-choice" role="group" {_label("which_draft", language)}>'
        f"<p><strong>{escape(text('which_draft', language))}</strong> {escape(text('blind_hint', language))}</p>"
        f'<div class="fw-drafts">{"".join(columns)}</div>{"" if writing else neither}</div>'
    )


def _error(turn: Turn, number: int, language: str, may_retry: bool) -> str:
    words = text(turn.error, language, reason=turn.reason) if turn.reason else text(turn.error, language)
    button = (
        f'<button type="button" class="fw-small" data-event="ask" data-what="retry" data-value="{number}">'
        f"{escape(text('try_again', language))}</button>"
        if may_retry and not turn.answer.id
        else ""
    )
    return f'<div class="fw-error" role="alert"><span>{escape(words)}</span>{button}</div>'


def _cursor(language: str) -> str:
    return f'<span class="fw-cursor" role="img" {_label("writing", language)}></span>'


def _label(key: str, language: str, **values: object) -> str:
    words = escape(text(key, language, **values))
    return f'aria-label="{words}" title="{words}"'
