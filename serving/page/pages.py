"""The page's addresses: the page itself for whoever is signed in, its files, and the sign-in form.

Every reply forbids the browser to load or send anything elsewhere, to run a script that is not one of these files, and
to show the page inside another one.
"""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from serving.errors import ServiceError
from serving.page.texts import STATIC, choose_language, text

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
