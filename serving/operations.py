"""What operators and probes ask: alive, ready, metrics; and the login of the page. None of it needs an identity."""

from __future__ import annotations

import contextlib
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving import schemas
from serving.auth import COOKIE, COOKIE_SECONDS, refuse_other_sites
from serving.errors import ServiceError
from serving.limits import Buckets
from serving.page.pages import sign_in_page
from serving.routes import Service, reply, service_of
from tasks.core.errors import FlywheelError
from tasks.store.nights import last_finished

LOGINS_PER_MINUTE = 30
router = APIRouter()


@router.get("/healthz", operation_id="health", response_model=dict[str, str], summary="The process is alive")
async def healthz() -> Any:
    """Always ok: whether it can answer is /readyz."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    operation_id="readiness",
    summary="Requests can be answered now, and by which version",
    response_class=Response,
    responses={
        200: {"model": schemas.Readiness},
        503: {"model": schemas.Readiness, "description": "not ready; problems say why"},
    },
)
async def readyz(service: Service) -> Any:
    """`problems` can be there while an older version is served: they say why not the newer one."""
    ready, detail = service.ready()
    return reply(detail, 200 if ready else 503, None if ready else {"retry-after": "5"})


@router.get("/metrics", operation_id="metrics", summary="Prometheus metrics", response_class=Response)
def metrics(service: Service) -> Response:
    """In Prometheus' text form. The last night that did not fail is read now; without a database it stays as it was."""
    with contextlib.suppress(FlywheelError, ServiceError):
        finished = last_finished(service.storage.store, service.settings.domain)
        service.metrics.last_night.set(finished.timestamp() if finished else 0.0)
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


@router.get("/login", include_in_schema=False)
async def show_login(request: Request, key: str | None = None) -> Response:
    """The form; with a key (a link that was handed out) the login itself."""
    return await _login(request, key) if key is not None else sign_in_page(request)


@router.post("/login", include_in_schema=False)
async def send_login(request: Request) -> Response:
    """The form's way: the key travels in the body, and stands in no history."""
    refuse_other_sites(request)
    fields = parse_qs((await request.body()).decode(errors="replace"), max_num_fields=4)
    return await _login(request, fields.get("key", [""])[0])


async def _login(request: Request, key: str) -> Response:
    service, state = service_of(request), request.app.state
    logins: Buckets = state.logins
    where = request.client.host if request.client else ""
    if (wait := logins.take(where)) > 0:
        raise ServiceError(429, "rate_limit_exceeded", "too many logins; wait a little", retry_after=int(wait) + 1)
    identity = await service.auth.login(key.strip())
    if identity is None:
        return sign_in_page(request, "This key is not known here. / 密钥无效。")
    target = RedirectResponse("/", 303, {"referrer-policy": "no-referrer", "cache-control": "no-store"})
    target.set_cookie(
        COOKIE,
        service.auth.cookie_of(identity),
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return target


@router.post("/logout", include_in_schema=False)
async def logout(request: Request) -> Response:
    """Forget the cookie."""
    refuse_other_sites(request)
    target = RedirectResponse("/login", 303)
    target.delete_cookie(COOKIE)
    return target
