"""The outermost layer: what every request meets before any of our code reads it.

Bodies are read here, whole, against a cap of bytes and a clock. Gives every request an id, a line in the log and a
place in the metrics, and turns what nobody caught into a 500 that tells nothing. Plain ASGI: Starlette's middleware
base costs more than the rest of the gateway.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import ServiceError
from serving.monitoring import Metrics

BODY_SECONDS = 10.0
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = ("/healthz", "/readyz", "/metrics")
log = logging.getLogger("serving")


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int) -> None:
        self.app, self.metrics, self.max_body_bytes = app, metrics, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Request(scope, send)
        try:
            body = await self._body(scope, request.headers, receive)
            await self.app(scope, _replay(body, receive), request.send)
        except ServiceError as error:
            await request.refuse(error)
        except Exception:
            log.exception("failed", extra={"request_id": request.id, "path": scope["path"]})
            await request.refuse(ServiceError(500, "internal_error", f"our fault; the log has it under {request.id}"))
        finally:
            self._account(scope, request)

    async def _body(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes | None:
        """The whole body of a request that has one."""
        if scope["method"] not in ("POST", "PUT", "PATCH", "DELETE"):
            return None
        most = self.max_body_bytes
        if scope["path"].startswith("/v1/"):
            kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
            empty = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
            if kind != b"application/json" and scope["method"] == "POST" and not empty:
                raise ServiceError(415, "unsupported_media_type", "send the body as application/json")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            raise _too_large(most)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _read(receive, most)
        except TimeoutError:
            raise ServiceError(408, "body_timeout", f"the body took longer than {BODY_SECONDS:g} s") from None

    def _account(self, scope: Scope, request: _Request) -> None:
        route = getattr(scope.get("route"), "path", None) or ("page" if request.status < 400 else "other")
        method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
        self.metrics.requests.labels(route=route, method=method, status=str(request.status)).inc()
        if scope["path"] in _QUIET:
            return
        path = route if route != "other" else scope["path"][:80]
        line = {"request_id": request.id, "method": method, "path": path, "status": request.status}
        line["ms"] = round((time.monotonic() - request.began) * 1000, 1)
        log.info("request", extra=line | scope.get("flywheel", {}))


class _Request:
    """What is known of one request, and its reply's way out."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.began, self.status, self._send = time.monotonic(), 0, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"").decode("latin-1")
        self.id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["flywheel"] = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
        await self._send(message)

    async def refuse(self, error: ServiceError) -> None:
        """Send an error, unless a reply has begun; then there is nothing left but to break it off."""
        if self.status:
            return
        headers = {"content-type": "application/json", **error.headers()}
        if error.status in (408, 413):
            headers["connection"] = "close"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": raw})
        await self.send({"type": "http.response.body", "body": orjson.dumps(error.body())})


async def _read(receive: Receive, most: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServiceError(400, "disconnected", "the client went away before its request was whole")
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes | None, receive: Receive) -> Receive:
    """A receive that gives the body that was read, then whatever comes after it."""
    if body is None:
        return receive
    given = False

    async def again() -> dict[str, Any]:
        nonlocal given
        if given:
            return dict(await receive())
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _too_large(most: int) -> ServiceError:
    return ServiceError(413, "body_too_large", f"a request's body has at most {most} bytes")
