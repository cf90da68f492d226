"""The page's addresses: the page itself for whoever is signed in, its files, the sign-in form; its words and examples.

Every reply forbids the browser to load or send anything elsewhere, to run a script that is not one of these files, and
to show the page inside another one. The words are those of static/texts.json, which the page's scripts read too.
"""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from serving.errors import ServiceError
from tasks.core.domain import Domain, load_domain
from tasks.core.errors import FlywheelError
from tasks.core.settings import SettingsError

STATIC = Path(__file__).with_name("static")
# A longer question makes no good button.
MAX_CHARACTERS = 70
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
FILES = {
    "style.css": "text/css",
    "texts.json": "application/json",
    **dict.fromkeys(("api.js", "chat.js", "conversation.js", "texts.js", "transcript.js"), "text/javascript"),
}
SIGN_IN = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page/style.css">
</head>
<body class="fw-sign-in">
<main>
<h1>{title}</h1>
<p>{hint}</p>
{error}<form action="/login" method="post">
<label for="key">{label}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus maxlength="200">
<button type="submit">{title}</button>
</form>
</main>
</body>
</html>
"""
router = APIRouter(include_in_schema=False)


@router.get("/")
async def page(request: Request) -> Response:
    """The page; whoever is not signed in is sent to the form."""
    if await request.app.state.service.auth.identity(request) is None:
        return RedirectResponse("/login", 303, HEADERS)
    return FileResponse(STATIC / "index.html", headers=HEADERS, media_type="text/html")


@router.get("/page/{name}")
async def file(name: str) -> Any:
    """One of the page's files. They hold nothing of anybody's."""
    if name not in FILES:
        raise ServiceError(404, "not_found", "there is nothing at this address")
    return FileResponse(STATIC / name, headers=HEADERS, media_type=FILES[name])


def sign_in_page(request: Request, error: str | None = None) -> HTMLResponse:
    """The form, in the browser's language; `error` is shown as text, whatever it holds."""
    language = choose_language(request.headers.get("accept-language", ""))
    alarm = f'<p class="fw-alarm" role="alert">{escape(error)}</p>\n' if error else ""
    source = SIGN_IN.format(
        language=language,
        title=text("sign_in", language),
        hint=text("sign_in_hint", language),
        label=text("access_key", language),
        error=alarm,
    )
    return HTMLResponse(source, 401 if error else 200, {**HEADERS, "cache-control": "no-store"})


@cache
def table() -> dict[str, Any]:
    """`languages`, code → name; `texts`, key → code → text."""
    found: dict[str, Any] = json.loads((STATIC / "texts.json").read_text(encoding="utf-8"))
    return found


def text(key: str, language: str) -> str:
    """The text of a key in a language.

    Raises:
        KeyError: no such key or language; both are written in code, so this is a mistake of ours.
    """
    return str(table()["texts"][key][language])


def choose_language(accept_language: str) -> str:
    """The first of the browser's languages that is one of ours, else English. Browsers name the wanted ones first."""
    wanted = (part.strip().lower()[:2] for part in accept_language.split(",")[:32])
    return next((language for language in wanted if language in table()["languages"]), "en")


def domain_examples(name: str, count: int = 4) -> tuple[str, list[str]]:
    """A domain's title and example questions; the bare name and none where its data is not installed here.

    A source that cannot be read gives no examples: that is for stage `ingest` to say, and no reason not to serve.
    """
    try:
        domain = load_domain(name)
    except SettingsError:
        return name, []
    try:
        return domain.title, example_questions(domain, count)
    except FlywheelError:
        return domain.title, []


def example_questions(domain: Domain, count: int) -> list[str]:
    """Up to `count` short questions, each of another category while there are any, in the source's order.

    A question that the evaluation asks is never offered: corrections of it could not be learned from.
    """
    from tasks.core.records import make_item
    from tasks.corpus.ingest.human import read_human

    frozen = json.loads(domain.frozen.read_text(encoding="utf-8"))["domain"] if domain.frozen.is_file() else []
    held_out, by_category, rest = set(frozen), {}, []
    for source in domain.human:
        examples, _, _ = read_human(source, domain.paths(source), domain.language)
        for example in examples:
            fields = {"prompt": example.prompt, "reference": example.output, "system": example.system}
            item = make_item(set="domain", **fields)
            if example.history or len(example.prompt) > MAX_CHARACTERS or item.id in held_out:
                continue
            if example.category in by_category:
                rest.append(example.prompt)
            else:
                by_category[example.category] = example.prompt
    return [*by_category.values(), *rest][:count]
