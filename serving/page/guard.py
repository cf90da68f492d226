"""What stands before Gradio: sign-in, the few addresses that the page needs, and headers that let nothing call out.

Gradio serves far more than this page uses (uploads, a proxy, API pages); whatever is not listed here is not reachable.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse

from serving.auth import refuse_other_sites
from serving.errors import ServiceError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's client builds its functions from the configuration (hence unsafe-eval) and styles elements in place.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"same-origin",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}
PAGES = ("/",)
FILES = ("/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/gradio_api/theme.css")
FOLDERS = ("/assets/", "/static/", "/svelte/")
CALLS = (
    "/config",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/info",
    "/gradio_api/startup-events",
    "/gradio_api/login_check",
    "/gradio_api/app_id",
    "/gradio_api/cancel",
    "/gradio_api/reset",
)


class Guard:
    """An ASGI application around Gradio's. `signed_in` tells whose request it is, or None."""

    def __init__(self, app: ASGIApp, signed_in: Callable[[Request], Awaitable[Any]]) -> None:
        self.app = app
        self.signed_in = signed_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: D102
        if scope["type"] == "http":
            answer = await self._answer(Request(scope))
            await answer(scope, receive, _with_headers(send))
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        """Gradio for what the page needs of somebody who is signed in; otherwise a refusal."""
        path = request.url.path.rstrip("/") or "/"
        if not _known(path):
            return _refusal(ServiceError(404, "not_found", "there is nothing at this address"))
        if _public(path) or await self.signed_in(request) is not None:
            try:
                refuse_other_sites(request)
            except ServiceError as error:
                return _refusal(error)
            return self.app
        if path in PAGES:
            return RedirectResponse("/login", 303)
        return _refusal(ServiceError(401, "signed_out", "sign in at /login"))


def _refusal(error: ServiceError) -> ASGIApp:
    return JSONResponse(error.body(), error.status, error.headers())


def _public(path: str) -> bool:
    return path in FILES or path.startswith(FOLDERS)


def _known(path: str) -> bool:
    """Whether the page needs this address. A path that climbs is never known, however it is written."""
    if ".." in unquote(path):
        return False
    return path in PAGES or path in CALLS or _public(path) or path.startswith("/gradio_api/heartbeat/")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() not in HEADERS]
            message = {**message, "headers": [*kept, *HEADERS.items()]}
        await send(message)

    return sending
