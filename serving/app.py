"""The gateway as one ASGI application: API, health, metrics, login, and the chat page at /."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from serving import operations, routes
from serving.errors import ServiceError, validation_message
from serving.guard import Guard
from serving.limits import Buckets
from serving.page import pages
from serving.service import ChatService
from serving.settings import GatewaySettings

DESCRIPTION = "OpenAI-compatible answers of a domain's champion, and feedback on them. Needs a key: Bearer fw_…"


def api(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None) -> FastAPI:
    """The addresses and their documentation, without a service behind them.

    FastAPI documents a 422 for every body; here such a body is a 400, which each route documents itself.
    """
    app = FastAPI(
        title="Flywheel", version="1", description=DESCRIPTION, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    for part in (routes, operations, pages):
        app.include_router(part.router)
    schema = app.openapi()
    for path in schema["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
    return app


def create_app(settings: GatewaySettings) -> FastAPI:
    """Build the gateway; nothing is opened before it starts to serve."""
    service = ChatService(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await service.start()
            yield
        finally:
            await service.stop()

    app = api(lifespan)
    app.state.service, app.state.logins = service, Buckets(operations.LOGINS_PER_MINUTE)
    _handle_errors(app)
    app.add_middleware(Guard, metrics=service.metrics, max_body_bytes=settings.serving.max_body_bytes)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Whatever is refused is refused in one shape."""

    @app.exception_handler(ServiceError)
    async def refused(request: Request, error: ServiceError) -> Response:
        return routes.reply(error.body(), error.status, error.headers())

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        message, param = validation_message(list(error.errors()))
        return await refused(request, ServiceError(400, "invalid_request", message, param=param))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        known = {404: "there is nothing at this address", 405: "this address does not take this method"}
        message = known.get(error.status_code, "the request cannot be read: send valid JSON in UTF-8")
        codes = {404: "not_found", 405: "method_not_allowed"}
        answer = ServiceError(error.status_code, codes.get(error.status_code, "invalid_request"), message)
        return routes.reply(answer.body(), answer.status, {**(error.headers or {}), **answer.headers()})
